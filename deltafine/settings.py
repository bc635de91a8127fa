"""Every setting of a refinement, with its default, its limits and its meaning."""

from __future__ import annotations

import difflib
import hashlib
import json
import re
import tomllib
import warnings
from collections.abc import Collection
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator
from pydantic_core import PydanticCustomError

from deltafine.errors import DeltafineError, DeltafineWarning
from deltafine.storage import run_files
from deltafine.storage.files import read_small

MOST_BYTES = 1 << 20
"""Of a recipe."""
TRUSTING = {
    "unsafe_lambda": "which runs Python code stored in the model file",
    "custom_objects": "which imports Python modules",
    "rule": "which imports Python modules",
    "allow_outside": "which opens files outside the data folder",
}
"""What no recipe can allow by itself, since recipes come from others."""
BUILT_IN_RULES = ("send-on-delta", "quantize")
"""Rules that can be asked for by name; any other is a class of the user's own."""
WITHOUT_MEMORY = ("quantize", "paper", "l1")
"""Rules for which it makes no difference what was sent before."""
_OWN_RULE = re.compile(r"[\w.]+:[\w.]+(\(.*\))?")
ADDED_LATER: dict[str, Any] = {"unfreeze": []}
"""What older runs did not know: left out of the hash while it has this value, so that they can be resumed."""
RENAMED = {
    "unit": "granularity",
    "head": "clip_output",
    "step_per": "threshold_per",
    "relative_step": "relative_threshold",
    "step_learning_rate": "threshold_learning_rate",
}
"""Old names of settings, still understood in recipes, runs and on the command line, and what they are called now."""
CHANGEABLE = ("on_nan", "checkpoint_minutes")
"""What may be given again when a run is resumed."""


def _rule_as_text(rule: Any) -> str:
    """A rule as settings hold it: its name, or ``module:Name(argument=value)``; an instance says the latter itself."""
    text = getattr(rule, "reference", rule)
    if isinstance(text, str) and (text in BUILT_IN_RULES or _OWN_RULE.fullmatch(text)):
        return text
    raise PydanticCustomError("rule", "it must be send-on-delta, quantize, or module:Name of a rule of your own")


RuleText = Annotated[str, BeforeValidator(_rule_as_text)]


class RefineSettings(BaseModel):
    """What to refine, on what, and how.

    A TOML file with these names is a recipe; the resolved one is kept in the run directory as ``settings.toml``.

    Examples:
        >>> settings = RefineSettings(model="model.keras", data="videos/", penalty=5.0)
        >>> settings.epochs, settings.granularity
        (4, 'element')
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    # What
    model: str = Field(description="path of the pretrained Keras model")
    data: str = Field(description="path of the videos")
    streams: str | None = Field(None, description="path of continuous videos to measure on, default: the data")
    classes: tuple[str, ...] | None = Field(None, description="class names in the order of the model's outputs")
    layout: str | None = Field(None, description="layout of the data, default: found by itself")
    split: int = Field(1, ge=1, description="number of the split list")
    validation: float = Field(0.2, gt=0, lt=1, description="share of videos kept for validation, without split lists")
    max_bad_videos: int = Field(0, ge=0, description="unreadable videos that are tolerated")
    rescale: Literal["0..1", "-1..1"] | None = Field(None, description="scale pixels before the model; default 0-255")
    size: str | None = Field(None, description="HEIGHTxWIDTH of the frames, for a model that takes any")

    # What the model's output says
    task: Literal["classification", "regression", "distill"] = Field(
        "classification", description="how the output is read and taught; distill: the original's answers alone"
    )
    clip_output: Literal["mean", "last", "per-frame"] | None = Field(
        None, description="what a per-frame model says of a clip; default: the mean over its frames"
    )

    custom_objects: tuple[str, ...] = Field((), description="MODULE:NAME of the model's own layers and functions")
    unsafe_lambda: bool = Field(False, description="run Python code stored in the model file")
    cache: str | None = Field(None, description="where to keep decoded frames; default: in the run while it lasts")
    allow_outside: bool = Field(False, description="let lists name files outside the data folder")
    fps: float | None = Field(None, gt=0, le=1000, description="take frames at this rate; default: all frames")

    # Where the delta layers go, and what they do
    at: tuple[str, ...] = Field((), description="name patterns of layers to put delta layers after")
    skip: tuple[str, ...] = Field((), description="name patterns of layers to leave alone")
    method: Literal["deltafine", "paper", "l1"] = Field(
        "deltafine", description="how training treats thresholds and events"
    )
    rule: RuleText = Field(
        "send-on-delta", description="what counts as an event: send-on-delta, quantize, or MODULE:NAME of your own"
    )
    granularity: Literal["element", "pixel"] = Field("element", description="what is sent as one")
    threshold_per: Literal["layer", "channel", "neuron"] = "layer"
    relative_threshold: float | None = Field(
        None, gt=0, description="threshold / RMS of the activations, the same for all layers; default: found per layer"
    )
    max_divergence: float = Field(
        0.02, gt=0, description="divergence of the output (nats per frame) that calibration alone may spend"
    )
    training_divergence: float = Field(
        0.05, gt=0, description="the same for the thresholds that training starts from: it wins back what they lose"
    )
    start: Literal["carried", "noise", "exact"] | None = Field(
        None, description="state that training clips start from; default: carried per pixel, noise per element"
    )

    # How far to go; without a target, λ stays as it is
    penalty: float = Field(20.0, ge=0, description="λ: what an event costs, one λ for every model and resolution")
    target_macs: float | None = Field(None, gt=0, lt=1, description="MAC density on the validation streams to reach")
    target_sparsity: float | None = Field(None, gt=0, lt=1, description="delta sparsity to reach")
    target_pixels: float | None = Field(None, gt=0, lt=1, description="pixel density to reach")
    max_accuracy_drop: float | None = Field(
        None, ge=0, le=1, description="go as far as validation accuracy allows; default: choose within 0.01"
    )

    # Training
    epochs: int = Field(4, ge=0, description="0: calibrate only")
    frames: int | None = Field(None, ge=2, description="length T of a training clip; default: the model's, or 8")
    frame_stride: int = Field(1, ge=1, description="from one frame of a training clip to the next")
    clip_stride: int | None = Field(None, ge=1, description="from one clip to the next in a video; default: frames")
    clips_per_video: int | None = Field(None, ge=1, description="training clips of every video; default: all")
    sampling: Literal["uniform", "random"] = Field(
        "uniform", description="where these lie; random: others in every epoch"
    )
    batch: int = Field(8, ge=1, description="clips per step")
    learning_rate: float = Field(1e-3, gt=0)
    threshold_learning_rate: float = Field(
        0.0, ge=0, description="of the logarithm of the thresholds; 0 keeps them as calibrated"
    )
    warmup: float = Field(0.1, ge=0, lt=1, description="share of the training over which rates and λ rise")
    recalibrate: int = Field(
        0,
        ge=0,
        description="how often the thresholds are computed again, spread over the training, the last time at its end",
    )
    weight_decay: float = Field(0.0, ge=0)
    clip_norm: float = Field(10.0, gt=0, description="global norm to which gradients are clipped")
    distill: float | None = Field(
        None, ge=0, le=1, description="share of the loss that follows the original model; default: 0.5, baselines 0"
    )
    average: float | None = Field(
        None,
        ge=0,
        le=1,
        description="share of the training that the weights which are kept are the mean of; default: 1/8, baselines 0",
    )
    freeze_batchnorm: bool = Field(False, description="keep BatchNorm statistics as they are")
    freeze: tuple[str, ...] = Field((), description="name patterns of layers whose weights stay as they are")
    unfreeze: tuple[str, ...] = Field(
        (), description="name patterns of layers to train although the model has them frozen; freeze goes before it"
    )
    optimizer: Literal["adamw", "sgd"] = Field("adamw", description="sgd: with Nesterov momentum 0.9")
    accumulate: int = Field(1, ge=1, description="steps whose gradients are averaged before the weights change")
    mixed_precision: bool = Field(False, description="train with activations in bfloat16, weights in float32")
    early_stopping: int | None = Field(None, ge=1, description="epochs without a better or sparser model to end")
    tensorboard: bool = Field(False, description="write logs for TensorBoard into the run")
    on_nan: Literal["stop", "rollback"] = Field(
        "stop", description="rollback: go back to the last checkpoint when the loss diverges, and halve the rates"
    )
    deterministic: bool = Field(False, description="only operations that give the same bits each time; slower on GPUs")
    checkpoint_minutes: float = Field(10.0, gt=0, description="longest training that a kill can cost")
    seed: int = Field(0, ge=0, lt=2**32)

    # Variation of training clips, each the same for all frames of a clip
    flip: bool = Field(False, description="mirror every second clip")
    crop: float = Field(1.0, gt=0, le=1, description="share of height and width that is cut out")
    scale: float = Field(0.0, ge=0, le=1, description="how far that share varies")
    brightness: float = Field(0.0, ge=0, le=1)
    contrast: float = Field(0.0, ge=0, le=1)
    saturation: float = Field(0.0, ge=0, le=1)

    @model_validator(mode="after")
    def _methods_of_others(self) -> RefineSettings:
        if self.method != "deltafine" and self.granularity != "element":
            raise ValueError(f"method {self.method!r} works on elements, not on granularity {self.granularity!r}")
        if sum(target is not None for target in (self.target_macs, self.target_sparsity, self.target_pixels)) > 1:
            raise ValueError("only one of target_macs, target_sparsity and target_pixels can be steered for")
        if self.recalibrate and not self.carried:
            raise ValueError(
                "recalibrate needs a rule with memory, such as send-on-delta, and clips that go on from each other: "
                "start 'carried'"
            )
        if self.sampling == "random" and self.clips_per_video is None:
            raise ValueError("random sampling needs clips_per_video")
        return self

    @property
    def layer_rule(self) -> str:
        """The rule of the delta layers while training."""
        return self.rule if self.method == "deltafine" else self.method

    @property
    def carried(self) -> bool:
        """Whether training clips go on from each other; rules without memory need no such order."""
        carried = self.granularity == "pixel" if self.start is None else self.start == "carried"
        return carried and self.layer_rule not in WITHOUT_MEMORY

    @property
    def noisy(self) -> bool:
        """Whether training clips start from states that are made up."""
        return self.granularity == "element" if self.start is None else self.start == "noise"

    @property
    def rate_of_thresholds(self) -> float:
        """Learning rate of the thresholds' logarithms; the authors of the paper train them as everything else."""
        return self.threshold_learning_rate or (self.learning_rate if self.method == "paper" else 0.0)

    @property
    def teaching(self) -> float:
        """Share of the loss that follows the original model, where there are labels."""
        return self.distill if self.distill is not None else 0.5 if self.method == "deltafine" else 0.0

    @property
    def averaged(self) -> float:
        """Share of the training over which weights are averaged."""
        return self.average if self.average is not None else 0.125 if self.method == "deltafine" else 0.0

    def hash(self) -> str:
        """Hex digest of all values."""
        values = self.model_dump(mode="json")
        old = {new: old for old, new in RENAMED.items()}  # so that runs from before a renaming can be resumed
        known = {old.get(name, name): value for name, value in values.items() if value != ADDED_LATER.get(name, ...)}
        return hashlib.sha256(json.dumps(known, sort_keys=True).encode()).hexdigest()

    def hash_of_results(self) -> str:
        """Hex digest of what a run may not be resumed without; how it goes on after a mishap may be changed."""
        return self.model_copy(update=dict.fromkeys(CHANGEABLE)).hash()

    def to_toml(self) -> str:
        """All values as TOML; what is None is left out, as TOML has no word for it."""
        lines = [
            f"{name} = {_toml(value)}" for name, value in self.model_dump(mode="json").items() if value is not None
        ]
        return "\n".join(lines) + "\n"


def resolve(recipe: str | Path | None = None, *, trusted: Collection[str] = (), **values: Any) -> RefineSettings:
    """Settings from a recipe file, overridden by values given directly (None means not given).

    Args:
        recipe: path of a TOML file.
        trusted: which of ``TRUSTING`` the recipe may ask for, beside those that are given directly.
        values: of the settings.

    Raises:
        DeltafineError: the recipe cannot be read, a name is unknown or a value out of its limits.
    """
    try:
        return RefineSettings.model_validate(_given(recipe, values, trusted))
    except ValidationError as error:
        raise DeltafineError(_one_sentence(error)) from error


def given_names(recipe: str | Path | None = None, **values: Any) -> set[str]:
    """Names of the settings that a recipe or the values give, as opposed to those left at their defaults."""
    return set(_given(recipe, values))


def _given(recipe: str | Path | None, values: dict[str, Any], trusted: Collection[str] = ()) -> dict[str, Any]:
    read = _by_new_names(_read_recipe(Path(recipe)), f"The recipe {recipe}") if recipe is not None else {}
    given = _by_new_names({name: value for name, value in values.items() if value is not None}, "The call")
    for name, what in TRUSTING.items():
        asked = ":" in str(read.get(name)) if name == "rule" else read.get(name)
        if asked and not given.get(name) and name not in trusted:
            raise DeltafineError(
                f"The recipe {recipe} asks for {name}, {what}: only if you trust whoever wrote it, give "
                f"--{name.replace('_', '-')} as well."
            )
    return {**read, **given}


def _by_new_names(values: dict[str, Any], where: str) -> dict[str, Any]:
    """The values by the names that settings have today; old ones are said, but not of what a run has kept itself.

    Raises:
        DeltafineError: A setting is given by both of its names.
    """
    if both := [(old, new) for old, new in RENAMED.items() if old in values and new in values]:
        old, new = both[0]
        raise DeltafineError(f"{where} gives '{new}' and '{old}', which is its old name: leave '{old}' out.")
    old_names = [name for name in values if name in RENAMED]
    if old_names and not where.endswith(run_files.SETTINGS):
        said = ", ".join(f"'{old}' is called '{RENAMED[old]}' now" for old in old_names)
        warnings.warn(f"{where} uses old names of settings: {said}.", DeltafineWarning, stacklevel=2)
    return {RENAMED.get(name, name): value for name, value in values.items()}


def _read_recipe(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(read_small(path, MOST_BYTES).decode("utf-8"))
    except OSError as error:
        raise DeltafineError(f"Cannot read the recipe {path}: {error.strerror}.") from error
    except (ValueError, RecursionError) as error:
        reason = " ".join(str(error).split())[:200]
        raise DeltafineError(f"The recipe {path} is not valid TOML: {reason}.") from error


def _one_sentence(error: ValidationError) -> str:
    first = error.errors()[0]
    name = ".".join(str(part) for part in first["loc"]) or "settings"
    if first["type"] == "extra_forbidden":
        near = difflib.get_close_matches(name, RefineSettings.model_fields, n=2)
        hint = f"did you mean {' or '.join(near)}?" if near else "see docs/refine.md for the names."
        return f"There is no setting named '{name}': {hint}"
    if first["type"] == "missing":
        return f"The setting '{name}' is missing: give it."
    if first["type"] == "value_error":
        return f"The settings do not go together: {first['ctx']['error']}."
    value = repr(first["input"])
    shown = value if len(value) < 100 else f"{value[:100]}..."
    return f"The setting '{name}' is {shown}, which does not do: {first['msg'].lower()}."


def _toml(value: Any) -> str:
    # A JSON string, number or list of strings is the same thing in TOML, but for one character.
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
