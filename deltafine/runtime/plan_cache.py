"""What is kept between starts: the plan of a model, and how this machine runs it best.

Nothing that is kept is needed. A file that is damaged, of another version or not to be read counts as not there, and
is made again; what cannot be kept costs the next start some seconds. Both are said, in a ``DeltafineWarning``.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
import os
import platform
import re
import warnings
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from deltafine.errors import DeltafineError, DeltafineWarning
from deltafine.runtime.plan import Plan, can_run_by_events
from deltafine.storage.files import (
    ABANDONED_SECONDS,
    CannotWrite,
    discard,
    make_folder,
    read_small,
    remove_unfinished,
    write_atomically,
)
from deltafine.storage.run_files import CHOICE, PLAN, PLAN_ARRAYS, PLAN_SOURCE, RANGES

_MOST_BYTES = 1 << 20
_DEAREST = 1e6
"""No multiply-accumulate of an event costs so many times as much as one of a row."""
_SOURCE = re.compile(rb"[0-9a-f]{64}( [0-9a-f]{64} [0-9a-f]{64})?\n?")


def digest(file: Path, frame_size: tuple[int, int] | None) -> str:
    """Hex digest of a model file and the frame size it is compiled for.

    Raises:
        DeltafineError: the file cannot be read.
    """
    try:
        with file.open("rb") as opened:
            content = hashlib.file_digest(opened, "sha256")
    except OSError as error:
        raise DeltafineError(f"The model {file} cannot be read: {error.strerror or error}.") from error
    content.update(repr(frame_size).encode())
    return content.hexdigest()


def user_cache() -> Path | None:
    """Where plans of single model files are kept; None for a user who has no home."""
    with contextlib.suppress(RuntimeError):
        return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "deltafine" / "plans"
    return None


def plan(folder: Path, source: str) -> Plan | None:
    """The plan in a folder if it is this model's, of this version, and as it was written."""
    try:
        text = read_small(folder / PLAN_SOURCE, _MOST_BYTES)
    except FileNotFoundError:
        return None
    except (OSError, DeltafineError) as error:
        _say_unused(folder / PLAN_SOURCE, error)
        return None
    if not _SOURCE.fullmatch(text):
        _say_unused(folder / PLAN_SOURCE, "it holds no digests")
        return None
    of_model, *others = text.decode().split()
    if of_model != source or not others or others[0] != _compiler():
        return None  # of another model, or by another version of this program: nothing is wrong with it
    try:
        if others[1] != _digest_of_plan(folder):
            _say_unused(folder, "its files are not those that were written")
            return None
        return Plan.load(folder)
    except (OSError, DeltafineError) as error:
        _say_unused(folder, error)
        return None


def keep_plan(plan: Plan, folder: Path | None, source: str) -> None:
    """Keep a plan where that is possible."""
    if folder is None:
        _say("The plan is compiled again at every start: there is no home folder to keep it in.")
        return
    try:
        make_folder(folder)
        remove_unfinished(folder, older_than=ABANDONED_SECONDS)
        for stale in (PLAN_SOURCE, CHOICE, RANGES, *(name for name in (PLAN, PLAN_ARRAYS) if (folder / name).is_dir())):
            discard(folder / stale)
        plan.save(folder)
        write_atomically(folder / PLAN_SOURCE, f"{source} {_compiler()} {_digest_of_plan(folder)}\n".encode())
    except (OSError, CannotWrite) as error:
        _say(f"The plan is compiled again at every start, since it cannot be kept: {_reason(error)}.")


def choice(folder: Path | None, source: str, plan: Plan) -> dict[str, float] | None:
    """What calibrating this plan has found on this machine before."""
    if folder is None:
        return None
    try:
        text = read_small(folder / CHOICE, _MOST_BYTES)
    except FileNotFoundError:
        return None
    except (OSError, DeltafineError) as error:
        _say_unused(folder / CHOICE, error)
        return None
    try:
        document = json.loads(text)
        if document["machine"] != machine() or document.get("source") != source:
            return None
        events = {str(name): float(price) for name, price in document["events"].items()}
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        _say_unused(folder / CHOICE, error)
        return None
    known = {operation.name for operation in plan.operations if can_run_by_events(operation)}
    if not known.issuperset(events) or not all(0 <= price <= _DEAREST for price in events.values()):
        _say_unused(folder / CHOICE, "it names other layers, or prices that are none")
        return None
    return events


def keep_choice(events: Mapping[str, float], folder: Path | None, source: str) -> None:
    """Keep what calibrating has found, beside a kept plan."""
    if folder is not None and folder.is_dir():
        text = json.dumps({"machine": machine(), "source": source, "events": dict(events)}, indent=1)
        try:
            write_atomically(folder / CHOICE, (text + "\n").encode())
        except CannotWrite as error:
            _say(f"What calibrating has found is not kept for the next start: {_reason(error)}.")


def ranges(folder: Path | None, source: str, plan: Plan) -> np.ndarray | None:
    """The ranges of the values of this plan, (tensors, 2), that were found before."""
    if folder is None:
        return None
    try:
        text = read_small(folder / RANGES, _MOST_BYTES)
    except FileNotFoundError:
        return None
    except (OSError, DeltafineError) as error:
        _say_unused(folder / RANGES, error)
        return None
    try:
        document = json.loads(text)
        if document["source"] != f"{source} {_compiler()}":
            return None
        found = np.array(document["ranges"], np.float64)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        _say_unused(folder / RANGES, error)
        return None
    if found.shape != (len(plan.tensors), 2) or not np.isfinite(found).all():
        _say_unused(folder / RANGES, "it holds ranges of another plan, or none")
        return None
    return found


def keep_ranges(found: np.ndarray, folder: Path | None, source: str) -> None:
    """Keep the ranges of values, beside a kept plan."""
    if folder is not None and folder.is_dir():
        text = json.dumps({"source": f"{source} {_compiler()}", "ranges": found.tolist()}, indent=1)
        try:
            write_atomically(folder / RANGES, (text + "\n").encode())
        except CannotWrite as error:
            _say(f"The ranges of values are not kept for the next start: {_reason(error)}.")


def machine() -> str:
    """The processor that this runs on, in words."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text("utf-8", "replace").splitlines():
            if line.startswith("model name"):
                return f"{line.partition(':')[2].strip()}, {os.cpu_count()} cores"
    return f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores"


def available_cores() -> int:
    """Processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@functools.cache
def _compiler() -> str:
    """Hex digest of the program that makes plans: one by another version may hold mistakes that are mended here."""
    content = hashlib.sha256()
    for file in sorted(Path(__file__).parent.rglob("*.py")):
        content.update(file.read_bytes())
    return content.hexdigest()


def _digest_of_plan(folder: Path) -> str:
    content = hashlib.sha256(read_small(folder / PLAN, 64 * _MOST_BYTES))
    with (folder / PLAN_ARRAYS).open("rb") as arrays:
        content.update(hashlib.file_digest(arrays, "sha256").digest())
    return content.hexdigest()


def _say_unused(path: Path, why: object) -> None:
    _say(f"What was kept is not used, and is made again: {path} ({_reason(why)}).")


def _reason(why: object) -> str:
    text = why.strerror if isinstance(why, OSError) and why.strerror else str(why)
    return " ".join(text.split()).rstrip(".")[:300]


def _say(sentence: str) -> None:
    warnings.warn(sentence, DeltafineWarning, stacklevel=2)
