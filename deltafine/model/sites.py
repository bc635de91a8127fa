"""Sites: the places of a model where a delta layer can stand, and which of them get one.

By default these are the model's inputs and the hidden activations that feed layers with MACs. Left out,
each with its reason in words, are the activations of the head (nothing with MACs follows), gates, and
attention weights.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from deltafine.errors import DeltafineError
from deltafine.model.activation_calls import activation_kind, is_activation
from deltafine.model.gates import gate_calls, is_hard_sigmoid
from deltafine.model.insertable import require_insertable
from deltafine.model.layer_names import Names
from deltafine.model.macs import MacLayer, mac_calls
from deltafine.model.reach import Reach, reach
from deltafine.model.time_axis import (
    require_channels_last,
    require_frames_apart,
    takes_clips_as_traced,
    values_with_frames,
)
from deltafine.model.trace import Call, FoldFrames, Trace, UnfoldFrames, Value, trace

INPUT = "input"
NO_TIME = "time is summed up before it: there is no frame before to compare with"
NOT_TIME = "inside TimeDistributed over parts of a frame: there is no frame before to compare with"


@dataclass(frozen=True)
class SitePlan:
    """A traced model with what the search for sites needs to know of it."""

    trace: Trace

    @cached_property
    def macs(self) -> dict[Call, MacLayer]:
        """The calls with MACs."""
        return mac_calls(self.trace)

    @cached_property
    def dense_macs(self) -> int:
        """MACs of the whole model per sample, where known."""
        return sum(entry.dense_macs or 0 for entry in self.macs.values())

    @cached_property
    def gates(self) -> set[Call]:
        """The calls inside gates."""
        return gate_calls(self.trace)

    @cached_property
    def with_frames(self) -> set[Value]:
        """The tensors in which a frame can be told from the one before it."""
        return values_with_frames(self.trace)

    @property
    def without_frames(self) -> str:
        """Why the other tensors are not among them."""
        return NO_TIME if takes_clips_as_traced(self.trace) else NOT_TIME

    @cached_property
    def input_sites(self) -> dict[str, str]:
        """The site of every input of the model by the input's name; layers keep theirs where they are named so."""
        names = Names(call.site_name for call in self.trace.calls)
        several = len(self.trace.inputs) > 1
        return {name: names.free(f"{INPUT}:{name}" if several else INPUT) for name in self.trace.inputs}

    @cached_property
    def delta_names(self) -> dict[str, str]:
        """Path of the delta layer of every place by site name: as the layer, with ``_delta``, where that is free."""
        levels = {path: Names(used) for path, used in self.trace.names.items()}
        found = {}
        for name in self.places:
            path, slash, leaf = name.rpartition("/")
            base, _, index = leaf.replace(":", "_").partition("#")
            level = levels.setdefault(path, Names())
            found[name] = f"{path}{slash}{level.free(f'{base}_delta' + (f'_{index}' if index else ''))}"
        return found

    def is_input(self, site_name: str) -> bool:
        """Whether the site is an input of the model."""
        return site_name in self.input_sites.values()

    @cached_property
    def places(self) -> dict[str, list[Value]]:
        """Every tensor where a delta layer could stand, by site name, in order of computation.

        Several tensors share a name where a nested model is called several times: it has one set of layers.
        """
        found = {site: [self.trace.inputs[name]] for name, site in self.input_sites.items()}
        for call in self.trace.calls:
            if len(call.outputs) == 1 and not isinstance(call.operation, FoldFrames | UnfoldFrames):
                found.setdefault(call.site_name, []).append(call.outputs[0])
        return found

    @cached_property
    def activations(self) -> dict[str, Call]:
        """The first call of each activation by site name."""
        found: dict[str, Call] = {}
        for call in self.trace.calls:
            if is_activation(call):
                found.setdefault(call.site_name, call)
        return found


@dataclass(frozen=True)
class Site:
    """One place for a delta layer.

    Attributes:
        name: path of the layer behind which it stands; ``outer/inner`` in nested models, ``#1`` for the second
            call of a layer, ``input`` (or ``input:<name>``) for a model input.
        kind: ``"input"``, the kind of activation (``"relu"``, ``"softmax"``, ...), or ``"chosen"`` for a layer
            that is no activation.
        shape: shape of one frame's tensor there, without the batch axis.
        consumers: paths of the layers with MACs that read it, through pooling, normalisation, sums and the like,
            but not through another selected site.
        fan_out_macs: MACs of the consumers, per frame, that depend on it.
        mac_share: the same as a share of the model's dense MACs.
        selected: whether it gets a delta layer.
        reason: why not; empty if it does.
    """

    name: str
    kind: str
    shape: tuple[int, ...]
    consumers: tuple[str, ...]
    fan_out_macs: int
    mac_share: float
    selected: bool
    reason: str
    plan: SitePlan = field(repr=False, compare=False)

    @property
    def delta_name(self) -> str:
        """Path of its delta layer in the clip model: ``name_delta``, ``name_delta_1`` for ``name#1``.

        Where the model has a layer of that name, the next number that is free.
        """
        return self.plan.delta_names[self.name]


def find_activations(model: Any, *, frame_shape: Sequence[int | None] | None = None) -> list[Site]:
    """The inputs and activations of a model, each selected by default or skipped with its reason.

    Args:
        model: a built Functional or Sequential Keras model, nested ones included.
        frame_shape: shape of one input sample, for a model that takes frames of any size.

    Returns:
        The sites in order of computation.

    Raises:
        DeltafineError: the model takes any size and ``frame_shape`` is missing; it has its channels first, or an
            operation across the batch axis; or it cannot be rewritten, see ``require_insertable``.

    Examples:
        >>> model = keras.models.load_model("model.keras")
        >>> [(site.name, site.selected) for site in deltafine.find_activations(model)]
        [('input', True), ('relu1', True), ('conv2', True), ('head', False)]
    """
    require_insertable(model)
    require_channels_last(model)
    plan = SitePlan(trace(model, frame_shape))
    require_frames_apart(model, plan.trace)
    _require_measurable(model, plan)
    names = [name for name in plan.places if name in plan.activations or plan.is_input(name)]
    reasons = {name: _default_reason(plan, name) for name in names}
    return make_sites(plan, names, reasons)


def make_sites(plan: SitePlan, names: Iterable[str], reasons: Mapping[str, str]) -> list[Site]:
    """Sites for the named places; a place with an empty reason is selected.

    A selected place of which every path meets another selected one before any layer with MACs would count
    the same changes twice, so it is skipped, unless nothing else is selected.
    """
    selected = {name for name in names if not reasons[name]}
    found: list[Site] = []
    for name in reversed(list(names)):
        barriers = {value for other in selected - {name} for value in plan.places[other]}
        reached = reach(plan.trace, plan.macs, plan.places[name], barriers)
        reason = reasons[name]
        if not reason and not reached.masks:
            reason = "another delta layer follows before any layer with MACs"
            selected.discard(name)
        found.append(_site(plan, name, reached, reason))
    return found[::-1]


def coverage(sites: Iterable[Site]) -> float:
    """Share of the model's dense MACs whose inputs depend on a selected site."""
    union, plan = covered(sites)
    return union.macs(plan.macs) / plan.dense_macs if plan.dense_macs else 0.0


def covered(sites: Iterable[Site]) -> tuple[Reach, SitePlan]:
    """What the selected sites reach together, and the plan they belong to."""
    sites = list(sites)
    plan = sites[0].plan
    selected = [site for site in sites if site.selected]
    barriers = {value for site in selected for value in plan.places[site.name]}
    union = Reach()
    for site in selected:
        own = plan.places[site.name]
        union.merge(reach(plan.trace, plan.macs, own, barriers.difference(own)))
    return union, plan


def _site(plan: SitePlan, name: str, reached: Reach, reason: str) -> Site:
    macs = reached.macs(plan.macs)
    return Site(
        name=name,
        kind=_kind(plan, name),
        shape=plan.places[name][0].sample_shape,
        consumers=tuple(call.path for call in reached.masks),
        fan_out_macs=macs,
        mac_share=macs / plan.dense_macs if plan.dense_macs else 0.0,
        selected=not reason,
        reason=reason,
        plan=plan,
    )


def _kind(plan: SitePlan, name: str) -> str:
    call = plan.activations.get(name)
    if call is not None:
        kind = activation_kind(call.operation) or ""
        return "hard_sigmoid" if is_hard_sigmoid(plan.trace, call) else kind
    return INPUT if plan.is_input(name) else "chosen"


def _default_reason(plan: SitePlan, name: str) -> str:
    values = plan.places[name]
    if not reach(plan.trace, plan.macs, values, ()).masks:
        return "head: no layer with MACs follows"
    if values[0] not in plan.with_frames:
        return plan.without_frames
    if "float" not in values[0].dtype:
        return f"holds {values[0].dtype}, not floating-point numbers"
    call = plan.activations.get(name)
    if call is None:
        return ""
    if call in plan.gates:
        return "gate: its result only scales another tensor"
    if activation_kind(call.operation) in ("softmax", "log_softmax", "sparsemax"):
        return "attention weights: a softmax inside the network"
    return ""


def _require_measurable(model: Any, plan: SitePlan) -> None:
    """Refuse a model of which nothing could be measured, before any work."""
    entries = list(plan.macs.values())
    if entries and not any(entry.covered for entry in entries):
        raise DeltafineError(
            f"Model '{model.name}' has no layer whose multiply-accumulates can be measured ('{entries[0].path}': "
            f"{entries[0].reason}): docs/metrics/coverage.md lists which can."
        )
