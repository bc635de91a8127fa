"""Models in HDF5 files of Keras 3.

Keras builds them, and reads their weights in the order of the file, which it does not always get back: a Sequential
model that was frozen and in part thawed again has its weights exchanged. So only the building is left to Keras.
"""

from __future__ import annotations

from copy import deepcopy
from pathlib import Path

import h5py
import keras

from deltafine.model import graph, keras_private
from deltafine.model.keras_private import Config, CustomObjects
from deltafine.model.stored_weights import read_weights, stored_layer


def load_hdf5(path: Path, config: Config, custom_objects: CustomObjects, *, unsafe_lambda: bool) -> keras.Model:
    """Build the model of a file and read its weights.

    Args:
        path: of the file.
        config: of the model.
        custom_objects: the user's own layers and functions, by the name under which they were saved.
        unsafe_lambda: allow Python code stored in the file.

    Raises:
        DeltafineError: the weights are not those of the model, or it cannot be told which is which.
    """
    model = build_hdf5(deepcopy(config), custom_objects, unsafe_lambda=unsafe_lambda)
    if graph.is_graph(model):
        with h5py.File(path, "r") as file:
            read_weights(file["model_weights"], stored_layer(config, model), keras_version=3)
    return model


def build_hdf5(config: Config, custom_objects: CustomObjects, *, unsafe_lambda: bool) -> keras.Model:
    """The model of a configuration, without its weights; Keras changes the configuration."""
    known = {**keras.saving.get_custom_objects(), **custom_objects}
    with keras.saving.custom_object_scope(dict(custom_objects)):
        return keras_private.model_of_hdf5_config(config, known, safe=not unsafe_lambda)
