"""What an insertion would do, before anything runs: sites, counts and state, as plain data."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, TypedDict

import keras

from deltafine.errors import DeltafineError
from deltafine.model import graph, recurrent
from deltafine.model.delta_settings import DeltaSettings
from deltafine.model.freezing import frozen_weights
from deltafine.model.further_inputs import names_of_inputs
from deltafine.model.site_patterns import addable
from deltafine.model.site_plan import SitePlan
from deltafine.model.sites import Site, covered, share_covered
from deltafine.model.time_axis import takes_clips

if TYPE_CHECKING:
    from deltafine.model.macs import MacLayer
    from deltafine.model.reach import Reach


VERSION = 1
BYTES_PER_VALUE = 4
# A layer of which less than this share of the MACs depends on a delta layer is listed as not behind one.
_REACHED = 0.5


class SitePreview(TypedDict):
    """A place where a delta layer may stand."""

    name: str
    kind: str
    shape: list[int]
    consumers: list[str]
    fan_out: float
    fan_out_macs: int
    mac_share: float
    thresholds: int
    state_bytes: int
    selected: bool
    reason: str


class NotBehind(TypedDict):
    """A layer with MACs that no delta layer feeds, and the share of all MACs that is fed by none."""

    layer: str
    mac_share: float


class Preview(TypedDict):
    """What :func:`preview_insertion` gives."""

    version: int
    model: dict[str, Any]
    sites: list[SitePreview]
    totals: dict[str, Any]
    not_behind: list[NotBehind]
    addable: list[str]
    not_counted: list[dict[str, Any]]
    counted_whole: list[dict[str, Any]]


def preview_insertion(model: keras.Model, sites: Sequence[Site], settings: DeltaSettings | None = None) -> Preview:
    """The plan of an insertion as a document of plain values.

    Args:
        model: the model.
        sites: from ``find_activations`` or ``select_sites``.
        settings: of the delta layers; they decide how many thresholds there are.

    Returns:
        ``model`` (name, shapes, parameters, which of them are frozen, dense MACs per frame as far as they are known,
        and how many layers' are not), ``sites``, ``totals`` (coverage, threshold count, state in bytes, and how many
        values the selected sites compare per frame), ``not_behind`` (layers with MACs that no delta layer feeds, and
        the share of all MACs that is in them and fed by none), ``addable`` (places that the default choice has beyond
        these), ``not_counted`` (layers with MACs that the measurement does not cover) and ``counted_whole`` (those of
        which all MACs count wherever an input changes). For a model that takes clips, counts are per clip.

    Raises:
        DeltafineError: there are no sites.
    """
    if not sites:
        raise DeltafineError(f"Model '{model.name}' has no activation and no input where a delta layer could stand.")
    settings = settings or DeltaSettings()
    union, plan = covered(sites)
    listed = [_site(site, settings) for site in sites]
    not_behind = _not_behind(plan, union)
    frozen = frozen_weights(model)
    chosen = [entry for entry in listed if entry["selected"]]
    sums = sum(math.prod(entry.output_shape) * entry.repeats for entry in plan.macs.values())
    return {
        "version": VERSION,
        "model": {
            "name": model.name,
            "input_shape": _shapes(_inputs(model)),
            "output_shape": _shapes(graph.output_structure(model)),
            "parameters": model.count_params(),
            "frozen": {**asdict(frozen), "layers": list(frozen.layers)},
            "dense_macs": plan.dense_macs,
            "layers_of_unknown_macs": sum(entry.dense_macs is None for entry in plan.macs.values()),
            "counted_per": "clip" if takes_clips(model) else "frame",
        },
        "sites": listed,
        "totals": {
            "selected": len(chosen),
            "coverage": share_covered(union, plan),
            "comparisons": sum(math.prod(site.shape) for site in sites if site.selected),
            "thresholds": sum(entry["thresholds"] for entry in chosen),
            "state_bytes": sum(entry["state_bytes"] for entry in chosen) + sums * BYTES_PER_VALUE,
        },
        "not_behind": not_behind,
        "addable": addable(sites) if not_behind else [],
        "not_counted": [_named(entry) for entry in plan.macs.values() if not entry.covered],
        "counted_whole": [_named(entry) for entry in plan.macs.values() if entry.whole],
    }


def _named(entry: MacLayer) -> dict[str, Any]:
    """A layer with what is not known of it."""
    return {
        "layer": entry.path,
        "type": type(entry.layer).__name__,
        "dense_macs": entry.dense_macs,
        "reason": entry.reason,
    }


def _inputs(model: keras.Model) -> graph.Tensors:
    """The inputs of a model; by name where it takes more than frames."""
    tensors = graph.input_tensors(model)
    return dict(zip(names_of_inputs(model), tensors, strict=True)) if len(tensors) > 1 else graph.input_structure(model)


def _shapes(tensors: graph.Tensors) -> Any:
    """Shapes of a model's inputs or outputs, in the structure that they have: one, a list or a dict."""
    return keras.tree.map_structure(lambda tensor: list(tensor.shape), tensors)


def _site(site: Site, settings: DeltaSettings) -> SitePreview:
    elements = math.prod(site.shape)
    thresholds = {"layer": 1, "channel": site.shape[-1] if site.shape else 1, "neuron": elements}[
        settings.threshold_per
    ]
    return {
        "name": site.name,
        "kind": site.kind,
        "shape": list(site.shape),
        "consumers": list(site.consumers),
        "fan_out": site.fan_out_macs / elements,
        "fan_out_macs": site.fan_out_macs,
        "mac_share": site.mac_share,
        "thresholds": thresholds,
        "state_bytes": elements * BYTES_PER_VALUE,
        "selected": site.selected,
        "reason": site.reason,
    }


def _not_behind(plan: SitePlan, union: Reach) -> list[NotBehind]:
    found: list[NotBehind] = []
    for call, entry in plan.macs.items():
        if not entry.dense_macs:
            continue
        reached = union.macs_at(call, plan.macs) + plan.still_macs.get(call, 0)
        state = 0 < reached < entry.dense_macs and recurrent.is_recurrent(entry.layer)
        if state or reached < _REACHED * entry.dense_macs:
            name = f"{entry.path}/state" if state else entry.path
            found.append({"layer": name, "mac_share": (entry.dense_macs - reached) / plan.dense_macs})
    return found
