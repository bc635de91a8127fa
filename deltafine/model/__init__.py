"""Load a Keras model, find its activations, count its operations, and rewrite its graph."""

from __future__ import annotations

from deltafine.model.default_choice import find_activations
from deltafine.model.delta_settings import DeltaSettings
from deltafine.model.fan_out_counts import dense_macs, fan_out
from deltafine.model.graph import run
from deltafine.model.insert import delta_layers, insert_deltas
from deltafine.model.loading import load, pixels_note
from deltafine.model.macs import MacLayer, mac_layers
from deltafine.model.preview import preview_insertion
from deltafine.model.site_patterns import select_sites
from deltafine.model.sites import Site, coverage

__all__ = [
    "DeltaSettings",
    "MacLayer",
    "Site",
    "coverage",
    "delta_layers",
    "dense_macs",
    "fan_out",
    "find_activations",
    "insert_deltas",
    "load",
    "mac_layers",
    "pixels_note",
    "preview_insertion",
    "run",
    "select_sites",
]
