"""The settings of a refinement: what goes together, what follows from them, their hash."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from pydantic import model_validator

from deltafine.settings.declarations import Declarations
from deltafine.settings.declaring import Declared
from deltafine.settings.rule_names import WITHOUT_MEMORY

ADDED_LATER: dict[str, Any] = {
    "unfreeze": [],
    "control": False,
    "score": None,
    "max_frames": None,
    "max_seconds": None,
    "time": None,
    "sensitivity_frames": 256,
    "output_weight": [],
    "input": [],
    "distill_features": 0.0,
    "passes": None,
    "mix": None,
}
"""What older runs did not know: left out of the hash while it has this value, so that they can be resumed."""
RENAMED = {
    "unit": "granularity",
    "head": "clip_output",
    "step_per": "threshold_per",
    "relative_step": "relative_threshold",
    "step_learning_rate": "threshold_learning_rate",
}
"""Old names of settings, still understood in recipes, runs and on the command line, and what they are called now."""
TODAYS_DEFAULT = "worthwhile"
"""How the word ``default`` of ``at`` is written down, so that it means the same when the default is another one."""
EARLIER_DEFAULT = "activations-only"
"""What it meant in runs that have written it down as it is."""
CHANGEABLE: dict[str, Any] = {"on_nan": None, "checkpoint_minutes": None, "control": False, "sensitivity_frames": 256}
"""What may be changed when a run is resumed, and what stands for it in the hash."""


class RefineSettings(Declarations):
    """What to refine, on what, and how.

    A TOML file with these names is a recipe; the resolved one is kept in the run directory as ``settings.toml``.

    Examples:
        >>> settings = RefineSettings(model="model.keras", data="videos/", target_macs="5%", skip=("conv2",))
        >>> settings.target_macs, settings.learning_rate
        (0.05, None)
    """

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
        if self.mix and not self.teaching:
            raise ValueError("mix needs the original's answers, which nothing follows with distill 0")
        if self.sampling == "random" and self.clips_per_video is None:
            raise ValueError("random sampling needs clips_per_video")
        return self

    @property
    def layer_rule(self) -> str:
        """The rule of the delta layers while training."""
        return self.rule if self.method == "deltafine" else self.method

    @property
    def of_an_earlier_version(self) -> bool:
        """Whether these are of a run from before ``start`` was always said; its defaults were others."""
        return self.start is None

    @property
    def places(self) -> tuple[str, ...]:
        """Where delta layers go; runs of earlier versions had another default choice, and keep it."""
        return tuple(EARLIER_DEFAULT if word == "default" else word for word in self.at) or (EARLIER_DEFAULT,)

    @property
    def recalibrations(self) -> int | None:
        """How often thresholds are calibrated again; None for as often as is good, where it can be done."""
        if self.recalibrate is None and (self.rule != "send-on-delta" or not self.carried):
            return 0
        return self.recalibrate

    @property
    def names_classes(self) -> bool:
        """Whether the answers are scores of labelled classes, or may be: of ``auto`` only the labels tell."""
        return self.task in ("auto", "classification")

    @property
    def starts_generated(self) -> bool:
        """Whether clips start from generated states because the answers are labelled classes.

        Of classes, that gave more than clips that go on from each other and recalibrations, which are for the rest.
        """
        # In the directory of a run all of these are given; there "auto" means what it meant when the run was started.
        decided = None not in (self.epochs, self.learning_rate, self.training_divergence)
        wanted = self.start == "noise" or (self.start == "auto" and not decided and not self.recalibrate)
        return wanted and self.names_classes and self.layer_rule == "send-on-delta"

    @property
    def of_classes(self) -> bool:
        """Whether the defaults are those for labelled classes: a large λ, and a large learning rate.

        Per-pixel, these learn few clips by heart before anything is saved, unless every second one is mirrored.
        """
        return self.starts_generated and (self.granularity == "element" or self.flip)

    @property
    def carried(self) -> bool:
        """Whether training clips go on from each other; rules without memory need no such order."""
        carried = self.granularity == "pixel" if self.of_an_earlier_version else self.start in ("auto", "carried")
        return carried and not self.starts_generated and self.layer_rule not in WITHOUT_MEMORY

    @property
    def noisy(self) -> bool:
        """Whether training clips start from generated states."""
        if self.of_an_earlier_version:
            return self.granularity == "element"
        return self.start == "noise" or (self.start == "auto" and not self.carried)

    @property
    def rate_of_thresholds(self) -> float:
        """Learning rate of the thresholds' logarithms; the authors of the paper train them as everything else."""
        return self.threshold_learning_rate or (self.rate if self.method == "paper" else 0.0)

    @property
    def trains_thresholds(self) -> bool:
        """Whether thresholds answer to the penalty at a rate of their own."""
        return self.method == "deltafine" and self.rate_of_thresholds > 0

    @property
    def first_penalty(self) -> float:
        """λ that a training begins with, and keeps if nothing steers it."""
        if self.penalty is not None:
            return self.penalty
        return 2.0 if not self.of_classes else 60.0 if self.granularity == "element" else 20.0

    @property
    def rate(self) -> float:
        """Learning rate of the weights."""
        return (1e-3 if self.of_classes else 5e-4) if self.learning_rate is None else self.learning_rate

    @property
    def divergence_to_train_from(self) -> float:
        """Of the thresholds that training starts from, in nats per frame."""
        return (0.02 if self.of_classes else 0.05) if self.training_divergence is None else self.training_divergence

    @property
    def teaching(self) -> float:
        """Share of the loss that follows the original model, where there are labels."""
        if self.distill is not None or self.method != "deltafine":
            return self.distill or 0.0
        return 1.0 if self.task == "regression" and not self.of_an_earlier_version else 0.5

    @property
    def teaching_of_labelled_outputs(self) -> float:
        """The same where a model has several outputs, some of which have labels of their own."""
        return 0.5 if self.distill is None and self.method == "deltafine" else self.teaching

    @property
    def freezes_batchnorm(self) -> bool:
        """Whether BatchNormalization stays as it is, where clips of a batch tell little of a stream's statistics."""
        if self.freeze_batchnorm is not None:
            return self.freeze_batchnorm
        return self.method == "deltafine" and not self.names_classes

    @property
    def averaged(self) -> float:
        """Share of the training over which weights are averaged."""
        return self.average if self.average is not None else 0.125 if self.method == "deltafine" else 0.0

    def hash(self) -> str:
        """Hex digest of all values."""
        values = self.model_dump(mode="json")
        old = {new: old for old, new in RENAMED.items()}  # so that runs from before a renaming can be resumed
        known = {old.get(name, name): value for name, value in values.items() if value != ADDED_LATER.get(name, ...)}
        return digest(known)

    def hash_of_results(self) -> str:
        """Hex digest of what a run may not be resumed without; how it goes on after a mishap may be changed."""
        return self.model_copy(update=CHANGEABLE).hash()

    def to_toml(self) -> str:
        """All values as TOML; what is None is left out, as TOML has no word for it."""
        lines = [
            f"{name} = {_toml(value)}" for name, value in self.model_dump(mode="json").items() if value is not None
        ]
        return "\n".join(lines) + "\n"


DECLARED = {name: Declared.of(name, field) for name, field in RefineSettings.model_fields.items()}
"""All settings by name, in order, as they are shown."""


def digest(values: Mapping[str, Any]) -> str:
    """Hex digest of settings by name, whatever their order."""
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()


def _toml(value: Any) -> str:
    # A JSON string, number or list of strings is the same thing in TOML, but for one character.
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
