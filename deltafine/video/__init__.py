"""From files to batches of clips: layouts, decoding, windows.

This room knows nothing of models: it hands out plain arrays and never loads TensorFlow.
"""

from __future__ import annotations

from deltafine.video.augmentation import Augmentation
from deltafine.video.catalogue import Problem, Video
from deltafine.video.clips import Batch, ClipSource
from deltafine.video.dataset import Dataset
from deltafine.video.frames import Limits
from deltafine.video.opening import open_dataset, open_for_frames

__all__ = [
    "Augmentation",
    "Batch",
    "ClipSource",
    "Dataset",
    "Limits",
    "Problem",
    "Video",
    "open_dataset",
    "open_for_frames",
]
