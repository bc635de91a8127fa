"""Choosing sites by the patterns that the user gives."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from fnmatch import fnmatchcase

import keras

from deltafine.errors import DeltafineError
from deltafine.model.default_choice import activation_sites, default_sites
from deltafine.model.reach import PADDINGS
from deltafine.model.site_plan import SitePlan
from deltafine.model.sites import Site, covered, make_sites
from deltafine.model.trace import FoldFrames, UnfoldFrames

DEFAULT = "default"
WORTHWHILE = "worthwhile"
ACTIVATIONS_ONLY = "activations-only"
UNCOVERED = "uncovered"

_LOOKED_THROUGH = (
    *PADDINGS, keras.layers.Flatten, keras.layers.Dropout, keras.layers.SpatialDropout2D, FoldFrames, UnfoldFrames,
)  # fmt: skip
"""By the word ``uncovered``, since before there was a default choice that covers more."""


def select_sites(sites: Sequence[Site], at: Sequence[str] = (), skip: Sequence[str] = ()) -> list[Site]:
    """Apply the user's patterns to the sites that ``find_activations`` gave.

    Patterns are shell patterns on site names (``*`` also spans ``/``). A pattern that matches activations means
    those (for ``skip``, also what else is chosen by default); only one that matches none is looked up among all other
    layers, which then become sites too.

    Some words have a meaning of their own among ``at``: ``default`` stands for the default choice, to add to it, and so
    does ``worthwhile``, which runs write down; ``activations-only`` for the default choice of earlier versions, the
    inputs and the hidden activations; ``uncovered`` for the inputs of those layers with MACs that this one leaves
    without a delta layer before them, such as linear bottlenecks.

    Args:
        sites: from ``find_activations``.
        at: exactly the sites to select; empty for the default choice.
        skip: sites to leave out of that.

    Returns:
        The sites with consumers and fan-out found again, in order of computation, chosen layers among them.

    Raises:
        DeltafineError: a pattern matches nothing, or no site is selected in the end.

    Examples:
        >>> model = keras.models.load_model("model.keras")
        >>> sites = select_sites(deltafine.find_activations(model), at=["relu*"])
        >>> [site.name for site in sites if site.selected]
        ['relu1']
    """
    sites = list(sites)
    if not sites:
        raise DeltafineError("The model has no activation and no input where a delta layer could stand.")
    plan, usual = sites[0].plan, _names_selected(sites)
    words = {DEFAULT: usual, WORTHWHILE: usual}
    if ACTIVATIONS_ONLY in at:
        sites = activation_sites(plan)  # what is chosen so is listed so, too: as earlier versions did
        words[ACTIVATIONS_ONLY] = _names_selected(sites)
    listed = [site.name for site in sites]
    reasons = {site.name: site.reason for site in sites}
    activations = [name for name in plan.places if name in plan.activations or plan.is_input(name)]
    if set(at) - {ACTIVATIONS_ONLY}:
        chosen = {
            name
            for pattern in at
            for name in (words[pattern] if pattern in words else _matches(pattern, plan, activations, "--at"))
        }
        reasons = {
            name: plan.why_impossible(name) if name in chosen else reasons.get(name) or "not named by --at"
            for name in {*listed, *chosen}
        }
    if not at or any(pattern in words for pattern in at if pattern != ACTIVATIONS_ONLY):
        activations = [name for name in plan.places if name in {*activations, *usual}]
    for pattern in skip:
        for name in _matches(pattern, plan, activations, "--skip"):
            reasons[name] = "named by --skip"
    names = [name for name in plan.places if name in reasons and (name in listed or not reasons[name])]
    result = make_sites(plan, names, reasons)
    if not any(site.selected for site in result):
        raise DeltafineError(
            "No place for a delta layer is left: "
            + "; ".join(f"'{site.name}' {site.reason}" for site in result[:3])
            + ("; ..." if len(result) > 3 else "")
            + ". Widen --at or narrow --skip."
        )
    return result


def _matches(pattern: str, plan: SitePlan, first: Sequence[str], option: str) -> list[str]:
    """The places that a pattern means: those among the first ones, or else among all."""
    if option == "--at" and pattern == UNCOVERED:
        return _inputs_of_uncovered(activation_sites(plan))
    everything = list(plan.places)
    for names in (first, everything):
        found = [name for name in names if fnmatchcase(name, pattern)]
        if found:
            return found
    near = difflib.get_close_matches(pattern, everything, n=3, cutoff=0.3) or list(first[:3])
    raise DeltafineError(
        f"{option} '{pattern}' matches no layer of the model; the nearest names are "
        + ", ".join(f"'{name}'" for name in near)
        + "."
    )


def addable(sites: Sequence[Site]) -> list[str]:
    """The places that the word ``default`` would add to the selected sites."""
    selected = set(_names_selected(sites))
    return [name for name in _names_selected(default_sites(sites[0].plan)) if name not in selected]


def _names_selected(sites: Sequence[Site]) -> list[str]:
    return [site.name for site in sites if site.selected]


def _inputs_of_uncovered(sites: Sequence[Site]) -> list[str]:
    """Places that feed layers with MACs which no selected site reaches; gates stay as they are."""
    reached, plan = covered(sites)
    names = {value: name for name, values in plan.places.items() for value in values}
    found: dict[str, None] = {}
    for call, entry in plan.macs.items():
        if not entry.dense_macs or call in reached.masks or call in plan.gates:
            continue
        for value in dict.fromkeys(call.inputs):
            while (maker := plan.trace.maker.get(value)) is not None and isinstance(maker.operation, _LOOKED_THROUGH):
                value = maker.inputs[0]
            possible = value in names and value in plan.with_frames and not plan.is_inside(names[value])
            if possible and plan.trace.maker.get(value) not in plan.gates and not plan.is_further_input(names[value]):
                found[names[value]] = None
    return list(found)
