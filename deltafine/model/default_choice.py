"""The default choice: where delta layers save more than they cost.

It begins with the inputs and the hidden activations that feed layers with MACs. Where a layer with MACs then sees
changes that no delta layer has sent (behind a linear bottleneck, a residual sum, a layer normalisation, a product with
a gate), one more stands directly before it. The states of recurrent layers have delta layers inside these.

A delta layer keeps a value for each element and compares each in every frame. So one that feeds less than a MAC per
value, or hardly any of the network's MACs, is left out: a delta layer behind the activation before a
squeeze-and-excite block, once there is one behind its product; and mostly those inside the block.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from deltafine.errors import DeltafineError
from deltafine.model.activation_calls import activation_kind
from deltafine.model.guarding import ATTENTION_KINDS, Guard
from deltafine.model.insertable import require_insertable
from deltafine.model.opened_layers import opened_trace
from deltafine.model.reach import reach
from deltafine.model.site_plan import SitePlan
from deltafine.model.sites import Site, make_sites
from deltafine.model.time_axis import require_channels_last, require_frames_apart

if TYPE_CHECKING:
    import keras

LEAST_MACS_PER_VALUE = 1.0
LEAST_OF_AVERAGE = 0.1
"""Of the MACs of an average layer."""
COSTS_MORE = "costs more than it saves: it feeds less than 1 MAC per value, or less than a tenth of an average layer"
GATE = "gate: its result only scales another tensor"


def find_activations(model: keras.Model, *, frame_shape: Sequence[int | None] | None = None) -> list[Site]:
    """The inputs and activations of a model, and what else a delta layer stands behind by default.

    Args:
        model: a built Functional or Sequential Keras model, nested ones included.
        frame_shape: shape of one input sample, for a model that takes frames of any size.

    Returns:
        The sites in order of computation, each selected or skipped with its reason.

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
    plan = SitePlan(opened_trace(model, frame_shape))
    require_frames_apart(model, plan.trace)
    _require_measurable(model, plan)
    return default_sites(plan)


def default_sites(plan: SitePlan) -> list[Site]:
    """The default choice of a traced model."""
    first = activation_sites(plan, inside=True)
    reasons = {site.name: site.reason for site in first}
    added = _added(plan, [site.name for site in first if site.selected])
    added += [plan.name_of[state] for states in plan.states.values() for state in states]
    if not added:
        return first
    reasons |= dict.fromkeys(added, "")
    gates = {call.path for call in plan.gates}
    while True:
        sites = make_sites(plan, _in_order(plan, reasons), reasons)
        doubtful = {site.name for site in sites if site.name in added or set(site.consumers) <= gates}
        dropped = [site.name for site in sites if site.selected and site.name in doubtful and not _is_worth_it(site)]
        if not dropped:
            return sites
        for name in dropped:
            in_gate = any(plan.trace.maker.get(value) in plan.gates for value in plan.places[name])
            reasons[name] = GATE if in_gate else COSTS_MORE


def activation_sites(plan: SitePlan, *, inside: bool = False) -> list[Site]:
    """The inputs and hidden activations alone: the default choice of earlier versions.

    Those had no delta layers inside layers that call others; ``inside`` adds the activations there.
    """
    names = [name for name in plan.places if name in plan.activations or plan.is_input(name)]
    names = [name for name in names if inside or not plan.is_inside(name)]
    return make_sites(plan, names, {name: _why_not(plan, name) for name in names})


def _added(plan: SitePlan, selected: Iterable[str]) -> list[str]:
    """The places behind which delta layers are missing, in the order in which layers with MACs need them.

    Those inside gates come last. They stand behind the pooling, which has fewer values than what is pooled.
    """
    guard, found = Guard(plan, selected), []
    calls = [call for call, entry in plan.macs.items() if entry.dense_macs]
    least = LEAST_OF_AVERAGE * plan.dense_macs / max(len(calls), 1)
    outside = [call for call in calls if call not in plan.gates]
    inside = [call for call in calls if call in plan.gates and (plan.macs[call].dense_macs or 0) >= least]
    for call in (*outside, *inside):
        for value in dict.fromkeys(call.inputs):
            if guard.keeps(value) and call not in plan.gates:
                continue
            for name in guard.places_before(value):
                if name not in guard.names and not plan.is_further_input(name):
                    guard.add(name)
                    found.append(name)
    return found


def _is_worth_it(site: Site) -> bool:
    known = [entry.dense_macs for entry in site.plan.macs.values() if entry.dense_macs]
    least = LEAST_OF_AVERAGE * sum(known) / max(len(known), 1)
    return site.fan_out_macs >= max(LEAST_MACS_PER_VALUE * math.prod(site.shape), least)


def _in_order(plan: SitePlan, names: Iterable[str]) -> list[str]:
    wanted = set(names)
    return [name for name in plan.places if name in wanted]


def _why_not(plan: SitePlan, name: str) -> str:
    values = plan.places[name]
    if not reach(plan.trace, plan.macs, values, ()).masks:
        return "head: no layer with MACs follows"
    if impossible := plan.why_impossible(name):
        return impossible
    if "float" not in values[0].dtype:
        return f"holds {values[0].dtype}, not floating-point numbers"
    if plan.is_further_input(name):
        return "an input beside the frames: all of its changes are sent"
    call = plan.activations.get(name)
    if call is None:
        return ""
    if call in plan.gates:
        return GATE
    if activation_kind(call.operation) in ATTENTION_KINDS:
        return "attention weights: a softmax inside the network"
    return ""


def _require_measurable(model: keras.Model, plan: SitePlan) -> None:
    """Refuse a model of which nothing could be measured, before any work."""
    entries = list(plan.macs.values())
    if entries and not any(entry.covered for entry in entries):
        raise DeltafineError(
            f"Model '{model.name}' has no layer whose multiply-accumulates can be measured ('{entries[0].path}': "
            f"{entries[0].reason}): docs/metrics/coverage.md lists which can."
        )
