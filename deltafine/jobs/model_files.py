"""How the jobs load models of users: what they trust in, the frame size, what stands for a clip."""

from __future__ import annotations

from typing import TYPE_CHECKING

from deltafine.errors import DeltafineError
from deltafine.settings import GivenSettings

if TYPE_CHECKING:
    import keras

    from deltafine.measurement.output import ClipOutput


def trust_in(settings: GivenSettings) -> GivenSettings:
    """Arguments of ``deltafine.model.loading``; what loads models is loaded only where the user names objects."""
    objects = None
    if names := settings.get("custom_objects"):
        from deltafine.model.custom_objects import import_objects

        objects = import_objects(names)
    return {"custom_objects": objects, "unsafe_lambda": settings.get("unsafe_lambda", False)}


def frame_size_of(settings: GivenSettings) -> tuple[int, int] | None:
    """Height and width, as ``deltafine.DeltaRuntime`` takes them."""
    if (size := settings.get("size")) is None:
        return None
    from deltafine.model.frame_size import parsed_size

    return parsed_size(size)


def clip_output_of(refined: keras.Model) -> ClipOutput:
    """What a refined model of single frames says of a clip."""
    from deltafine.layers.time import TimeLast, TimeMean
    from deltafine.model import graph

    end = graph.maker(refined.outputs[0])
    return "last" if isinstance(end, TimeLast) else "mean" if isinstance(end, TimeMean) else "per-frame"


def check_clip_output(refined: keras.Model, wanted: str | None) -> None:
    """Refuse what a refined model does not say of a clip: that belongs to it.

    Raises:
        DeltafineError: it says something else.
    """
    from deltafine.model.clip_model import frame_layers

    if wanted is None:
        return
    if not frame_layers(refined):
        raise DeltafineError("--clip-output is for models that take single frames; this one takes clips as it stands.")
    if (said := clip_output_of(refined)) != wanted:
        raise DeltafineError(
            f"The clip output of this refined model is '{said}', not '{wanted}': leave --clip-output out, or refine "
            "with that."
        )
