"""What a run was started with, so that it is not resumed with something else."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from pathlib import Path

from deltafine.errors import DeltafineError
from deltafine.measurement.scoring import source_digest
from deltafine.model.custom_objects import import_rule
from deltafine.model.loading import files_of
from deltafine.refinement.run import checkpoints
from deltafine.refinement.run.preparation import Prepared
from deltafine.storage import run_files
from deltafine.storage.files import JsonObject
from deltafine.video.finding import content_hash


@dataclass(frozen=True)
class Fingerprint:
    """Digests of the bytes of the model, of the videos, of those that are measured on, and of code of the user's own.

    Attributes:
        model, data, streams: of what the settings of this name give.
        rule, score: of the file that such code is in; empty where it is deltafine's.
    """

    model: str
    data: str
    streams: str
    rule: str = ""
    score: str = ""

    @classmethod
    def of(cls, prepared: Prepared) -> Fingerprint:
        """Read every file once."""
        settings = prepared.settings
        return cls(
            " ".join(content_hash(file) for file in files_of(Path(settings.model))),
            prepared.data.fingerprint(),
            prepared.streams.fingerprint(),
            source_digest(type(import_rule(settings.layer_rule))) if ":" in settings.layer_rule else "",
            "" if prepared.scoring is None else prepared.scoring.source,
        )

    def refuse_others(self, started_with: JsonObject, prepared: Prepared, out: Path) -> None:
        """Compare with what is in the checkpoint of a run.

        Raises:
            DeltafineError: something has changed since.
        """
        settings = prepared.settings
        for name, words in (
            ("model", f"The model {settings.model} is not the one"),
            ("data", f"The videos in {settings.data} are not those"),
            ("streams", f"The videos in {settings.streams or settings.data} are not those"),
            ("rule", f"The file of the rule {settings.rule} is not the one"),
            ("score", f"The file of the score {settings.score} is not the one"),
        ):
            now = getattr(self, name)
            if started_with.get(name, now) != now:  # earlier versions kept nothing of the code
                raise DeltafineError(
                    f"{words} that the run in {out} was started with, byte for byte: put them back as they were, or "
                    "start a new run."
                )


def started_with(folder: Path) -> JsonObject | None:
    """The digests that are kept in a run's folder of checkpoints; None where none can be read."""
    for name in (name for name in (run_files.CALIBRATED, run_files.LAST) if (folder / name).exists()):
        with contextlib.suppress(checkpoints.Damaged):
            facts = checkpoints.read_facts(folder / name)
            # In the checkpoint of a training they stand beside much else; in those of earlier versions they do not.
            known = facts if name == run_files.CALIBRATED else facts.get("started_with")
            if known is not None:
                return known
    return None
