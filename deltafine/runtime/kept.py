"""What is kept between starts: the plan of a model, and how this machine runs it best."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import platform
from collections.abc import Mapping
from pathlib import Path

from deltafine.errors import DeltafineError
from deltafine.runtime.plan import Plan

SOURCE, CHOICE = "source.sha256", "choice.json"


def digest(file: Path, frame_size: tuple[int, int] | None) -> str:
    """Hex digest of a model file and the frame size it is compiled for."""
    with file.open("rb") as opened:
        content = hashlib.file_digest(opened, "sha256")
    content.update(repr(frame_size).encode())
    return content.hexdigest()


def user_cache() -> Path:
    """Where plans of single model files are kept."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "deltafine" / "plans"


def plan(folder: Path, source: str) -> Plan | None:
    """The plan in a folder if it is this model's and of this version."""
    try:
        if (folder / SOURCE).read_text(encoding="utf-8") != source:
            return None
        return Plan.load(folder)
    except (OSError, DeltafineError):
        return None


def keep_plan(plan: Plan, folder: Path, source: str) -> None:
    """Keep a plan where that is possible; a folder that cannot be written to costs the next start some seconds."""
    try:
        for stale in (SOURCE, CHOICE):
            (folder / stale).unlink(missing_ok=True)
        plan.save(folder)
        (folder / SOURCE).write_text(source, encoding="utf-8")
    except OSError:
        return


def choice(folder: Path | None) -> dict[str, float] | None:
    """What calibrating has found on this machine before."""
    if folder is None:
        return None
    try:
        document = json.loads((folder / CHOICE).read_text("utf-8"))
        known = document["machine"] == machine()
        return {str(name): float(price) for name, price in document["events"].items()} if known else None
    except (OSError, ValueError, KeyError):
        return None


def keep_choice(events: Mapping[str, float], folder: Path | None) -> None:
    """Keep what calibrating has found, beside a kept plan."""
    if folder is not None and folder.is_dir():
        with contextlib.suppress(OSError):
            text = json.dumps({"machine": machine(), "events": dict(events)}, indent=1)
            (folder / CHOICE).write_text(text + "\n", "utf-8")


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
