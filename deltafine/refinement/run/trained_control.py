"""The same training without delta layers: what it gives must not be credited to sparsity."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from pathlib import Path

import keras

from deltafine import model as models
from deltafine.document.controls import TrainedControl
from deltafine.document.figures import Figures
from deltafine.errors import DeltafineError, DeltafineWarning
from deltafine.measurement.side_by_side import measure_with_controls
from deltafine.model.freezing import set_trainable
from deltafine.refinement.listener import Listener
from deltafine.refinement.run import checkpoints
from deltafine.refinement.run.interruption import Requests
from deltafine.refinement.run.preparation import Prepared
from deltafine.refinement.training.kept_answers import KeptAnswers
from deltafine.refinement.training.losses import Loss
from deltafine.refinement.training.step import Trainer
from deltafine.refinement.training.teaching import Features
from deltafine.refinement.training.trainable import prepare_batchnorm
from deltafine.storage import run_files
from deltafine.storage.files import discard


def trained_control(
    prepared: Prepared,
    original: keras.Model,
    loss: Loss,
    out: Path,
    listener: Listener,
    requests: Requests,
    features: Features | None = None,
    answers: KeptAnswers | None = None,
) -> keras.Model:
    """Train the original for as many epochs, on the same batches and targets, with the same rates.

    The weights are those after the last epoch, averaged as in the other training. A checkpoint after each epoch lets
    ``--resume`` go on; the epoch that was under way is repeated.

    Args:
        prepared: data and settings of the run.
        original: clip model, which teaches; it is not changed.
        loss: of the task.
        out: the run directory.
        listener: told how far it is.
        requests: what stops it.
        features: of the original that are followed as well.
        answers: of the original, kept.

    Raises:
        DeltafineError: the checkpoint belongs to another model, or no training video can be read any more.
        KeyboardInterrupt: on Ctrl-C or SIGTERM.
    """
    settings = prepared.settings
    student = models.insert_deltas(prepared.model, [], **prepared.form)
    set_trainable(student, unfreeze=settings.unfreeze, freeze=settings.freeze)
    prepare_batchnorm(student, freeze=settings.freezes_batchnorm)
    batches = len(prepared.clips("train", epoch=1))
    teacher = original if prepared.follows_original else None
    steps = batches * prepared.epochs
    trainer = Trainer(student, teacher, loss, {}, settings, steps=steps, features=features, answers=answers)
    file = out / run_files.CHECKPOINTS / run_files.CONTROL
    variables, done = [*student.variables, *trainer.state], 0
    if file.exists():
        try:
            facts = checkpoints.read_facts(file)
            checkpoints.restore(file, variables)
        except checkpoints.Damaged as error:
            discard(file)
            said = f"The control without delta layers is trained again, since {error.reason}."
            warnings.warn(said, DeltafineWarning, stacklevel=2)
        else:
            done = int(facts["epoch"])
            trainer.step = done * batches
    for epoch in range(done + 1, prepared.epochs + 1):
        total, steps = 0.0, 0
        for batch in prepared.clips("train", epoch=epoch):
            targets = batch.targets if prepared.window is None else batch.labels
            task, _, _ = trainer.train_on_batch(batch.frames, targets, 0.0, clips=batch.clips)
            total, steps = total + task, steps + 1
            words = f"loss {total / steps:.3f}"
            listener.progress(f"control without delta layers, epoch {epoch}", steps, batches, words)
            requests.obey()
        if not steps or not math.isfinite(total):
            raise DeltafineError(f"The control could not be trained in epoch {epoch}: leave --control out.")
        checkpoints.save(file, variables, {"epoch": epoch})
    with trainer.averaged():
        kept = [variable.numpy() for variable in student.variables]
    for variable, value in zip(student.variables, kept, strict=True):
        variable.assign(value)
    return student


def measured_control(
    control: keras.Model, prepared: Prepared, quality_of: Callable[[Figures], float | None], listener: Listener
) -> TrainedControl | None:
    """What it reaches on the run's streams, on every frame and held; None where no stream has a label."""
    found, controls = measure_with_controls(
        {"original": control},
        prepared.reported,
        prepared.frames,
        streams=prepared.streams,
        fps=prepared.settings.fps,
        output=prepared.output,
        metrics=prepared.scores,
        progress=lambda what, done, total: listener.progress(f"measuring {what} of the control", done, total),
    )
    quality = quality_of(found["original"].streams)
    if controls is None or quality is None:
        return None
    return TrainedControl(epochs=prepared.epochs, quality=quality, held=controls.held)
