"""What a model takes: the size of its frames, and the length of its clips."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from deltafine.errors import DeltafineError
from deltafine.model import graph
from deltafine.model.further_inputs import further_inputs

if TYPE_CHECKING:
    import keras

FRAMES = 8
"""Length of a clip where neither the user nor the model gives one."""


def frame_shape(model: keras.Model, size: str | None) -> tuple[int | None, ...] | None:
    """Shape of one input sample for a size such as ``"224x224"``; None if none is given.

    A clip length is the model's own.

    Raises:
        DeltafineError: the size is not ``HEIGHTxWIDTH``, or the model has not one image input.
    """
    if size is None:
        return None
    height, width = parsed_size(size)
    images = [tensor for tensor in graph.input_tensors(model) if len(tensor.shape) in (4, 5)]
    if len(images) != 1:
        raise DeltafineError(f"Model '{model.name}' has not one image input, so a frame size says nothing.")
    *lead, _, _, channels = images[0].shape[1:]
    return (*lead, height, width, channels)


def parsed_size(size: str) -> tuple[int, int]:
    """Height and width of a size such as ``"224x224"``.

    Raises:
        DeltafineError: it is not ``HEIGHTxWIDTH``.
    """
    match = re.fullmatch(r"(\d+)[x×](\d+)", size.strip())
    if match is None or not int(match[1]) * int(match[2]):
        raise DeltafineError(f"A frame size is written HEIGHTxWIDTH, such as 224x224, not '{size}'.")
    return int(match[1]), int(match[2])


def sample_shape(model: keras.Model, size: str | None, frames: int | None) -> tuple[tuple[int, ...], int]:
    """Shape of one input sample of a model of frames or clips, and the number of frames of a clip.

    Args:
        model: the model.
        size: such as ``"224x224"``, for a model that takes any.
        frames: clip length; None for the model's own, or else 8.

    Raises:
        DeltafineError: the model takes something else than frames or clips, or sizes are missing or do not fit.
    """
    shape = graph.frames_input(model).shape
    images = [tensor for tensor in model.inputs if len(tensor.shape) >= 4]
    if len(images) != 1 or len(shape) not in (4, 5) or shape[-1] not in (1, 3):
        raise DeltafineError(
            f"The model takes {[tuple(tensor.shape) for tensor in model.inputs]}; deltafine needs one input of frames "
            "(batch, height, width, 1 or 3 channels), or of clips (batch, time, height, width, 1 or 3 channels)."
        )
    further_inputs(model)  # refuses those that are no numbers of a frame
    *length, height, width, channels = shape[1:]
    given = frame_shape(model, size)
    if given is not None:
        for own, wanted in zip((height, width), given[-3:-1], strict=True):
            if own not in (None, wanted):
                raise DeltafineError(f"The model takes frames of {height}x{width}: leave --size out.")
        height, width = given[-3:-1]
    if height is None or width is None:
        raise DeltafineError("The model takes frames of any size: give one with --size, such as --size 224x224.")
    if not length:
        return (height, width, channels), frames or FRAMES
    own_length = length[0]
    if frames and own_length not in (None, frames):
        raise DeltafineError(f"The model takes clips of {own_length} frames, not {frames}: leave --frames out.")
    clip = own_length or frames or FRAMES
    return (clip, height, width, channels), clip
