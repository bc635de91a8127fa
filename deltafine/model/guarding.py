"""Where a delta layer has to stand so that a layer with MACs sees a change only where one was sent.

Behind a delta layer most elements stay what they were. Activations, batch normalisation, sums and pooling keep that:
an element of what they give changes only with the few elements that it is made of. A layer with MACs does not, and
neither do layer normalisation (one element changes all of its position), a softmax, or the product with a gate that
is one value for a whole channel. Behind these, a delta layer is needed again before the next layer with MACs.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import keras

from deltafine.model.activation_calls import activation_kind
from deltafine.model.gates import is_stretched
from deltafine.model.reach import PADDINGS, only_moves
from deltafine.model.site_plan import SitePlan
from deltafine.model.trace import Call, FoldFrames, UnfoldFrames, Value

layers = keras.layers

ATTENTION_KINDS = ("softmax", "log_softmax", "sparsemax")
MIXING = (
    layers.LayerNormalization, layers.GroupNormalization, layers.UnitNormalization, layers.RMSNormalization,
)  # fmt: skip
"""Normalisation by what the frame itself holds: every change changes all that is normalised together."""
_DROPOUTS = (
    layers.Dropout, layers.SpatialDropout1D, layers.SpatialDropout2D, layers.SpatialDropout3D, layers.AlphaDropout,
    layers.GaussianDropout, layers.GaussianNoise, layers.ActivityRegularization,
)  # fmt: skip
_ELEMENTWISE_LAYERS = (
    layers.BatchNormalization, layers.Normalization, layers.Rescaling, layers.Identity, *_DROPOUTS,
    layers.Add, layers.Subtract, layers.Multiply, layers.Average, layers.Maximum, layers.Minimum,
)  # fmt: skip
_ELEMENTWISE_OPERATIONS = frozenset({
    "Add", "Subtract", "Multiply", "Divide", "TrueDivide", "Maximum", "Minimum", "Negative", "Abs", "Absolute",
    "Square", "Sqrt", "Rsqrt", "Exp", "Log", "Log1p", "Power", "Clip", "Cast", "Where", "Sign",
})  # fmt: skip

# A delta layer stands better before these: with fewer values, without a border of zeros, with its channels, without
# noise in training. What TimeDistributed does around its layer is no place at all.
LOOKED_THROUGH = (
    *PADDINGS, *_DROPOUTS, layers.Flatten, layers.Identity, FoldFrames, UnfoldFrames,
    layers.UpSampling1D, layers.UpSampling2D, layers.UpSampling3D, layers.RepeatVector,
)  # fmt: skip


class Guard:
    """Which tensors of a model change only where a delta layer has sent something.

    Args:
        plan: the traced model.
        names: the places that have a delta layer; kept as ``names``, with those that are added.
    """

    def __init__(self, plan: SitePlan, names: Iterable[str]) -> None:
        self._plan = plan
        self._kept: set[Value] = set()
        self.names: set[str] = set()
        for name in names:
            self.add(name)

    def add(self, name: str) -> None:
        """Put a delta layer at one more place."""
        self.names.add(name)
        self._kept.update(self._plan.places[name])

    def keeps(self, value: Value) -> bool:
        """Whether a tensor changes only where something was sent."""
        open_ones = [value]  # each is needed by the one before; a chain may be longer than Python nests calls
        while open_ones:
            last = open_ones[-1]
            call = self._plan.trace.maker.get(last)
            if last in self._kept:
                open_ones.pop()
            elif call is None or call in self._plan.macs or not _passes_on(call):
                return False
            elif missing := [one for one in call.inputs if one not in self._kept]:
                open_ones.append(missing[0])
            else:
                self._kept.add(last)
        return True

    def places_before(self, value: Value) -> Iterator[str]:
        """The places where delta layers would make a tensor change only where something was sent.

        The last ones before it; of a concatenation, only those of its parts that need one, if others do not.
        """
        trace, open_ones = self._plan.trace, [value]
        while open_ones:
            value = open_ones.pop()
            while (call := trace.maker.get(value)) is not None and isinstance(call.operation, LOOKED_THROUGH):
                value = call.inputs[0]
            name = self._plan.name_of.get(value)
            joins = call is not None and isinstance(call.operation, layers.Concatenate)
            if call is not None and (name is None or joins) and call not in self._plan.macs and _passes_on(call):
                parts = [part for part in dict.fromkeys(call.inputs) if not self.keeps(part)]
                if name is None or len(parts) < len(set(call.inputs)):
                    open_ones += reversed(parts)
                    continue
            attention = call is not None and activation_kind(call.operation) in ATTENTION_KINDS
            if name is not None and not attention and "float" in value.dtype and not self._plan.why_impossible(name):
                yield name


def _passes_on(call: Call) -> bool:
    """Whether an element of what a call gives changes only with the few that it is made of."""
    operation = call.operation
    if isinstance(operation, FoldFrames | UnfoldFrames) or only_moves(operation):
        return True
    if any(is_stretched(value, call.outputs[0]) for value in call.inputs):
        return False  # a gate: one of its values changes a whole channel
    if (activation := activation_kind(operation)) is not None:
        return activation not in ATTENTION_KINDS
    if isinstance(operation, layers.Layer):
        return isinstance(operation, _ELEMENTWISE_LAYERS)
    return type(operation).__name__ in _ELEMENTWISE_OPERATIONS and ".ops." in type(operation).__module__
