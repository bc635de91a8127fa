"""The frame size for a model that takes frames of any size."""

from __future__ import annotations

import re
from typing import Any

from deltafine.errors import DeltafineError
from deltafine.model import graph


def frame_shape(model: Any, size: str | None, frames: int | None = None) -> tuple[int | None, ...] | None:
    """Shape of one input sample for a size such as ``"224x224"`` and a clip length; None if neither is given.

    Sizes that are not given are the model's own.

    Raises:
        DeltafineError: the size is not ``HEIGHTxWIDTH``, or the model has not one image input.
    """
    if size is None and frames is None:
        return None
    match = None if size is None else re.fullmatch(r"(\d+)[x×](\d+)", size.strip())
    if size is not None and match is None:
        raise DeltafineError(f"A frame size is written HEIGHTxWIDTH, such as 224x224, not '{size}'.")
    tensors = graph.input_tensors(model)
    if len(tensors) != 1 or len(tensors[0].shape) not in (4, 5):
        raise DeltafineError(f"Model '{model.name}' has not one image input, so a frame size says nothing.")
    *lead, height, width, channels = tensors[0].shape[1:]
    if match is not None:
        height, width = int(match[1]), int(match[2])
    return (*(frames or length for length in lead), height, width, channels)
