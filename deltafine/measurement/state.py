"""State: what a delta inference must keep from one frame to the next."""

from __future__ import annotations

from deltafine.measurement.metric import Beside, Derived, Result
from deltafine.measurement.probe import Probe

BYTES_PER_VALUE = 4


def state_bytes(probe: Probe) -> int:
    """Bytes per stream in 32-bit values: what each delta layer sent last, and the sums of each layer with MACs.

    A layer's sums (its output before the activation) are what the next changes are added to.
    """
    values = sum(place.elements for place in probe.deltas) + sum(place.output_elements for place in probe.layers)
    return values * BYTES_PER_VALUE


class State(Derived):
    """The bytes that one stream keeps."""

    name = "state"

    def result(self, beside: Beside) -> Result:
        return Result(operations={"state_bytes": state_bytes(self.subject.probe)})
