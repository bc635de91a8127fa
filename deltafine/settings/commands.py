"""Which command takes which settings."""

from __future__ import annotations

from deltafine.settings.refine_settings import DECLARED

FILE = ("custom_objects", "unsafe_lambda")
"""Of every command that loads a model."""
VIDEOS = ("layout", "split", "classes", "allow_outside", "cache")
"""Of every command that takes frames from videos."""
LIMITS = ("max_bad_videos", "max_frames", "max_seconds")
"""Of every command that leaves videos out."""
SPLIT = ("validation", "seed")
"""Of every command to which it matters which videos were trained on."""
TAKES: dict[str, tuple[str, ...]] = {
    "inspect": ("size", "frames", "clip_output", *FILE, "at", "skip", "threshold_per", "freeze", "unfreeze"),
    "data": ("layout", "split", "classes", *SPLIT, "allow_outside", *LIMITS),
    "refine": tuple(name for name in DECLARED if name not in ("model", "data")),
    "report": (
        *("streams", "task", "input", "clip_output", "frames", "size", "fps", "rescale", "score", "sensitivity_frames"),
        *(*VIDEOS, *SPLIT, *LIMITS, *FILE),
    ),
    "export": ("frames", "input", "clip_output", *VIDEOS, *SPLIT, "fps", *LIMITS, *FILE),
    "run": ("size", "input", *FILE),
    "bench": ("size", "input", *VIDEOS, *SPLIT, *FILE),
}
"""Settings by command. `refine` lists the common ones and takes all; the others list what they take."""
