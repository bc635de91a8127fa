"""Choosing sites by the patterns that the user gives."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from fnmatch import fnmatchcase

import keras

from deltafine.errors import DeltafineError
from deltafine.model.reach import PADDINGS
from deltafine.model.sites import Site, SitePlan, covered, make_sites
from deltafine.model.trace import FoldFrames, UnfoldFrames

DEFAULT = "default"
UNCOVERED = "uncovered"

# A delta layer stands better before these: without a border of zeros, with its channels, without noise in training.
# What TimeDistributed does around its layer is no place at all.
_LOOKED_THROUGH = (
    *PADDINGS, keras.layers.Flatten, keras.layers.Dropout, keras.layers.SpatialDropout2D, FoldFrames, UnfoldFrames,
)  # fmt: skip


def select_sites(sites: Sequence[Site], at: Sequence[str] = (), skip: Sequence[str] = ()) -> list[Site]:
    """Apply the user's patterns to the sites that ``find_activations`` gave.

    Patterns are shell patterns on site names (``*`` also spans ``/``). A pattern that matches activations means
    those; only one that matches none is looked up among all other layers, which then become sites of kind
    ``"chosen"``. Two words have a meaning among ``at``: ``default`` stands for the default choice, to add to it;
    ``uncovered`` for the inputs of those layers with MACs that the default choice leaves without a delta layer
    before them, such as linear bottlenecks.

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
    plan, listed = sites[0].plan, [site.name for site in sites]
    reasons = {site.name: site.reason for site in sites}
    if at:
        chosen = {name for pattern in at for name in _matches(pattern, sites, "--at")}
        reasons = {
            name: _why_not(plan, name) if name in chosen else reasons.get(name) or "not named by --at"
            for name in {*listed, *chosen}
        }
    for pattern in skip:
        for name in _matches(pattern, sites, "--skip"):
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


def _why_not(plan: SitePlan, name: str) -> str:
    """Why a place cannot be chosen, whatever the user says: a delta layer there would compare no frames."""
    return "" if plan.places[name][0] in plan.with_frames else plan.without_frames


def _matches(pattern: str, sites: Sequence[Site], option: str) -> list[str]:
    if pattern == DEFAULT and option == "--at":
        return [site.name for site in sites if site.selected]
    if pattern == UNCOVERED and option == "--at":
        return _inputs_of_uncovered(sites)
    listed = [site.name for site in sites]
    everything = list(sites[0].plan.places)
    for names in (listed, everything):
        found = [name for name in names if fnmatchcase(name, pattern)]
        if found:
            return found
    near = difflib.get_close_matches(pattern, everything, n=3, cutoff=0.3) or listed[:3]
    raise DeltafineError(
        f"{option} '{pattern}' matches no layer of the model; the nearest names are "
        + ", ".join(f"'{name}'" for name in near)
        + "."
    )


def addable(sites: Sequence[Site]) -> list[str]:
    """The places that the word ``uncovered`` would add to the selected sites."""
    selected = {site.name for site in sites if site.selected}
    return [name for name in _inputs_of_uncovered(sites) if name not in selected]


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
            if value in names and value in plan.with_frames and plan.trace.maker.get(value) not in plan.gates:
                found[names[value]] = None
    return list(found)
