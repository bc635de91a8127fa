"""Sites: places of a model with what a delta layer there would feed, and what they feed together."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from deltafine.model.activation_calls import activation_kind
from deltafine.model.gates import is_hard_sigmoid
from deltafine.model.guarding import MIXING
from deltafine.model.reach import Reach, reach
from deltafine.model.recurrent import StateValue
from deltafine.model.site_plan import INPUT, SitePlan

_KINDS: dict[str, str] = {
    "Add": "sum", "Subtract": "sum", "Average": "sum", "Maximum": "sum", "Minimum": "sum",
    "Multiply": "product", "Concatenate": "concatenation",
}  # fmt: skip
"""Of layers and operations that are no activation, by class name."""


@dataclass(frozen=True)
class Site:
    """One place for a delta layer.

    Attributes:
        name: path of the layer behind which it stands; ``outer/inner`` in nested models, ``#1`` for the second
            call of a layer, ``input`` (or ``input:<name>``) for a model input.
        kind: ``"input"``, the kind of activation (``"relu"``, ``"softmax"``, ...), or what it is instead: a
            ``"sum"``, a ``"product"``, a ``"concatenation"``, a ``"normalisation"``, a ``"pooling"``, the ``"state"``
            of a recurrent layer, or ``"linear"``.
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
        if not reason and not reached.calls:
            reason = "another delta layer follows before any layer with MACs"
            selected.discard(name)
        found.append(_site(plan, name, reached, reason))
    return found[::-1]


def coverage(sites: Iterable[Site]) -> float:
    """Share of the model's dense MACs whose inputs depend on a selected site, or never change.

    Zeros around a picture never change.
    """
    return share_covered(*covered(sites))


def share_covered(union: Reach, plan: SitePlan) -> float:
    """The same of what sites reach together."""
    behind = union.macs(plan.macs) + sum(plan.still_macs.values())
    return behind / plan.dense_macs if plan.dense_macs else 0.0


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
        consumers=tuple(call.path for call in reached.calls),
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
    if plan.is_input(name):
        return INPUT
    if isinstance(plan.places[name][0], StateValue):
        return "state"
    operation = plan.trace.maker[plan.places[name][0]].operation
    if isinstance(operation, MIXING):
        return "normalisation"
    if "Pooling" in type(operation).__name__:
        return "pooling"
    return _KINDS.get(type(operation).__name__, "linear")
