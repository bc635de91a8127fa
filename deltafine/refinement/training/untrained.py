"""What a run says of weights that it does not train."""

from __future__ import annotations

from deltafine.model.freezing import Frozen
from deltafine.refinement.thresholds.budget import Budget
from deltafine.settings import RefineSettings


def about_frozen(frozen: Frozen, settings: RefineSettings) -> str:
    """How many weights a training leaves as they are, and how to train them, unless the user froze some himself."""
    hint = "." if settings.freeze else "; --unfreeze PATTERN trains them too."
    return f"{frozen.sentence}: training leaves them as they are{hint}"


def about_no_training(frozen: Frozen, settings: RefineSettings) -> list[str]:
    """Why a run that was to train only calibrates, and what of the settings only a training gives."""
    if not settings.epochs:
        return []
    why = f"all {frozen.of:,} weights of the model are frozen" if frozen.of else "the model has no weights"
    way_out = " Give --unfreeze '*' to train it." if frozen.of else ""
    found = [f"Nothing is trained, because {why}: the refined model is the calibrated one.{way_out}"]
    budget = Budget.of(settings)
    if budget.density is not None or budget.spend:
        found.append("The budget is not aimed at: that takes a training.")
    return found
