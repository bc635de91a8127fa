"""The names of everything in a run directory.

::

    run/
      refined.keras        the refined model
      report.json          the report; report.html and report.md show it, pictures/ holds its pictures
      settings.toml        the settings that the run was started with
      history.csv          a row per epoch
      checkpoints/         calibrated.h5, the thresholds; last.h5, to go on from; epoch-0001.h5 ..., to choose from
      cache/               decoded frames, until the run is over
      runtime/             the compiled plan, and how this machine runs it best
      export/              what `deltafine export` has written; exports.json says how it was checked
      tensorboard/         logs, where they were asked for
"""

from __future__ import annotations

import re

REFINED = "refined.keras"

REPORT = "report.json"
PAGE = "report.html"
TEXT = "report.md"
PICTURES = "pictures"

SETTINGS = "settings.toml"
HISTORY = "history.csv"

CHECKPOINTS = "checkpoints"
CALIBRATED = "calibrated.h5"
LAST = "last.h5"
CONTROL = "control.h5"

FRAMES = "cache"
TRIALS = "calibration-"
"""How the names of files in a cache begin that have what a calibration tried."""
TENSORBOARD = "tensorboard"

RUNTIME = "runtime"
PLAN = "plan.json"
PLAN_ARRAYS = "plan.npz"
PLAN_SOURCE = "source.sha256"
CHOICE = "choice.json"
RANGES = "ranges.json"

EXPORT = "export"
EXPORTS = "exports.json"

_EPOCH = re.compile(r"epoch-(\d{4,9})\.h5")


def epoch_file(epoch: int) -> str:
    """Name of the file with the weights after an epoch."""
    return f"epoch-{epoch:04d}.h5"


def epoch_of(name: str) -> int | None:
    """After which epoch the weights in a file of this name were kept; None for any other file."""
    found = _EPOCH.fullmatch(name)
    return int(found[1]) if found else None
