"""Layer configurations written by Keras 2, cleaned so that Keras 3 takes them.

Each rule is named after the error that it cures.
"""

from __future__ import annotations

from collections.abc import Callable

from deltafine.errors import DeltafineError
from deltafine.model.keras_private import Config

# "Unrecognized keyword arguments passed to <class>": arguments that Keras 2 wrote for everyone, by class name.
_UNRECOGNIZED: dict[str, tuple[str, ...]] = {
    "DepthwiseConv1D": ("groups", "filters", "kernel_initializer", "kernel_regularizer", "kernel_constraint"),
    "DepthwiseConv2D": ("groups", "filters", "kernel_initializer", "kernel_regularizer", "kernel_constraint"),
    "SeparableConv1D": ("groups", "kernel_initializer", "kernel_regularizer", "kernel_constraint"),
    "SeparableConv2D": ("groups", "kernel_initializer", "kernel_regularizer", "kernel_constraint"),
    "Conv1DTranspose": ("groups",),
    "Conv2DTranspose": ("groups",),
    "Conv3DTranspose": ("groups",),
    "BatchNormalization": ("fused", "renorm", "renorm_clipping", "renorm_momentum", "virtual_batch_size"),
    "LSTM": ("time_major", "implementation"),
    "GRU": ("time_major", "implementation"),
    "SimpleRNN": ("time_major", "implementation"),
    "ConvLSTM1D": ("groups", "time_major", "implementation"),
    "ConvLSTM2D": ("groups", "time_major", "implementation"),
    "ConvLSTM3D": ("groups", "time_major", "implementation"),
    "Dense": ("kernel_dtype",),
    "Resizing": ("crop_to_aspect_ratio",),
    "Embedding": ("input_length",),
}


def cleaned(class_name: str, config: Config) -> Config:
    """The configuration of one layer as Keras 3 takes it.

    Raises:
        DeltafineError: the layer does what Keras 3 cannot.
    """
    config = dict(config)
    for rule in _RULES:
        config = rule(class_name, config)
    return config


def cleaned_name(name: str) -> str:
    """`Argument `name` must be a string and cannot contain character `/``."""
    return name.replace("/", "_")


def _name_cannot_contain_a_slash(class_name: str, config: Config) -> Config:
    return {**config, "name": cleaned_name(config["name"])} if "name" in config else config


def _unrecognized_keyword_arguments(class_name: str, config: Config) -> Config:
    dropped = _UNRECOGNIZED.get(class_name, ())
    if class_name.startswith("Random"):
        dropped += ("rng_type",)
    if config.get("time_major"):
        raise DeltafineError(
            f"Layer '{config.get('name')}' ({class_name}) has time before the batch (time_major=True), which Keras 3 "
            "has no layer for: build the model again with the batch first."
        )
    if class_name.endswith("Transpose") and config.get("groups", 1) != 1:
        raise DeltafineError(f"Layer '{config.get('name')}' ({class_name}) has groups, which Keras 3 cannot do.")
    return {key: value for key, value in config.items() if key not in dropped}


def _axis_must_be_an_integer(class_name: str, config: Config) -> Config:
    axis = config.get("axis")
    if class_name == "BatchNormalization" and isinstance(axis, list | tuple):
        return {**config, "axis": axis[0]}
    return config


def _do_not_pass_an_input_shape(class_name: str, config: Config) -> Config:
    return {key: value for key, value in config.items() if key not in ("batch_input_shape", "input_dim", "ragged")}


def _cannot_interpret_dtype(class_name: str, config: Config) -> Config:
    """Keras 2 wrote a mixed-precision policy as an object of its own."""
    dtype = config.get("dtype")
    return {**config, "dtype": dtype["config"]["name"]} if isinstance(dtype, dict) else config


def _alpha_is_called_negative_slope(class_name: str, config: Config) -> Config:
    if class_name == "LeakyReLU" and "alpha" in config:
        slope = config.pop("alpha")
        return {**config, "negative_slope": slope["value"] if isinstance(slope, dict) else slope}
    return config


def _unknown_initializer(class_name: str, config: Config) -> Config:
    """All weights are read from the file, so nothing depends on how they were initialised."""
    return {key: value for key, value in config.items() if not key.endswith("_initializer")}


_RULES: tuple[Callable[[str, Config], Config], ...] = (
    _name_cannot_contain_a_slash,
    _unrecognized_keyword_arguments,
    _axis_must_be_an_integer,
    _do_not_pass_an_input_shape,
    _cannot_interpret_dtype,
    _alpha_is_called_negative_slope,
    _unknown_initializer,
)
