"""Load a Keras model, find its activations, count its operations, and rewrite its graph."""

from __future__ import annotations

from deltafine.model.choose import choose
from deltafine.model.fan_out import dense_macs, fan_out
from deltafine.model.graph import run
from deltafine.model.insert import delta_layers, insert_deltas
from deltafine.model.load import load
from deltafine.model.macs import MacLayer, mac_layers
from deltafine.model.overview import overview
from deltafine.model.settings import DeltaSettings
from deltafine.model.sites import Site, coverage, find_activations

__all__ = [
    "DeltaSettings",
    "MacLayer",
    "Site",
    "choose",
    "coverage",
    "delta_layers",
    "dense_macs",
    "fan_out",
    "find_activations",
    "insert_deltas",
    "load",
    "mac_layers",
    "overview",
    "run",
]
