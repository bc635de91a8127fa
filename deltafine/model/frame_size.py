"""The frame size for a model that takes frames of any size."""

from __future__ import annotations

import re
from typing import Any

from deltafine.errors import DeltafineError
from deltafine.model import graph


def frame_shape(model: Any, size: str | None) -> tuple[int, ...] | None:
    """Shape of one frame for a size such as ``"224x224"``; None if no size is given.

    Raises:
        DeltafineError: the size is not ``HEIGHTxWIDTH``, or the model has not one image input.
    """
    if size is None:
        return None
    match = re.fullmatch(r"(\d+)[x×](\d+)", size.strip())
    if match is None:
        raise DeltafineError(f"A frame size is written HEIGHTxWIDTH, such as 224x224, not '{size}'.")
    tensors = graph.input_tensors(model)
    if len(tensors) != 1 or len(tensors[0].shape) not in (4, 5):
        raise DeltafineError(f"Model '{model.name}' has not one image input, so a frame size says nothing.")
    *lead, _, _, channels = tensors[0].shape[1:]
    return (*lead, int(match[1]), int(match[2]), channels)
