"""Overhead: what a delta inference does that a dense inference does not, and the density at which it stops paying.

For a layer with N input elements, of which E have changed, and M outputs, each frame needs in addition

- N comparisons of the input with the one that was seen last, and N subtractions, which make the changes,
- N values of the last input read, E written, and M sums of the frame before read.

Every one of these counts as one operation, as a MAC does. What a dense inference also does (reading the input,
writing the outputs, the activation function) is not overhead. A first frame only stores its N inputs.
"""

from __future__ import annotations

from dataclasses import dataclass

from deltafine.measurement.density import Density
from deltafine.measurement.effective_macs import EffectiveMacs
from deltafine.measurement.metric import Beside, Derived, Result
from deltafine.measurement.probe import Place


def steps(place: Place) -> int:
    """How often a layer runs per frame: once; or per window, of a network that takes clips."""
    return max(1, len(place.step_macs))


def comparisons(place: Place) -> int:
    """Per frame, as many as there are subtractions."""
    return place.elements * steps(place)


def moves(place: Place, changed: float, share: float = 1.0) -> float:
    """Values read and written per frame, ``changed`` being the mean number of elements changed when it runs.

    Of a model that runs on a share of the frames, ``changed`` is the mean over all.
    """
    return (share * (place.elements + place.output_elements) + changed) * steps(place)


def overhead_operations(place: Place, changed: float, share: float = 1.0) -> float:
    """Comparisons, subtractions and moves per frame, of a model that runs on a share of them."""
    return 2 * share * comparisons(place) + moves(place, changed, share)


def break_even_density(place: Place) -> float:
    """The delta density at which effective MACs + overhead = dense MACs; 0 if the overhead is larger whatever changes.

    Solves MACs * d + 3 N + d N + M = MACs for d.
    """
    most = place.dense_macs - overhead_operations(place, 0)
    return max(0.0, most / (place.dense_macs + place.elements * steps(place)))


@dataclass(frozen=True)
class Spent:
    """What all layers need in addition, mean per frame, first frames left out."""

    comparisons: float
    moves: float

    @property
    def operations(self) -> float:
        """With the subtractions, of which there are as many as comparisons."""
        return 2 * self.comparisons + self.moves


class Overhead(Derived):
    """What delta inference adds, from the number of elements that change."""

    name = "overhead"

    def spent(self, density: Density) -> Spent:
        """By all layers."""
        places, shares = self.subject.probe.layers, density.compared()
        compared = sum(share * comparisons(place) for place, share in zip(places, shares, strict=True))
        return Spent(compared, sum(map(moves, places, density.changed_per_step(), shares)))

    def result(self, beside: Beside) -> Result:
        macs, density, places = beside.metric(EffectiveMacs), beside.metric(Density), self.subject.probe.layers
        added = self.spent(density).operations
        return Result(
            operations={
                "overhead_operations": added,
                "overhead_operations_with_first": self._with_first(density) / macs.frames,
                "density_with_overhead": (macs.delta_steady + added) / macs.dense_total,
            },
            layers=[
                {
                    "overhead_operations": overhead_operations(place, changed, share),
                    "break_even_density": break_even_density(place),
                }
                for place, changed, share in zip(places, density.changed_per_step(), density.compared(), strict=True)
            ],
        )

    def _with_first(self, density: Density) -> float:
        """Operations of all frames; a first frame only stores its inputs."""
        total = 0.0
        changed, shares = density.changed_per_step(), density.compared()
        for index, place in enumerate(self.subject.probe.layers):
            of_all, steady = int(density.steps[index]), int(density.steady_steps[index])
            often = steps(place)
            total += overhead_operations(place, changed[index], shares[index]) * steady / often
            total += comparisons(place) * (of_all - steady) / often
        return total
