"""The plan of a refinement, before anything runs."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from deltafine.settings import RefineSettings, checked

if TYPE_CHECKING:
    from deltafine.model.preview import Preview


def inspect_model(model: str | os.PathLike[str], **settings: Any) -> Preview:
    """What a refinement would do to a model, made as far as that goes without videos.

    Args:
        model: path of a ``.keras``, ``.h5`` or ``.onnx`` file.
        settings: the fields of ``deltafine.settings.RefineSettings`` that say where delta layers go, what the
            model takes and what of it is frozen.

    Returns:
        The plan as plain values, see ``deltafine.model.preview_insertion``.

    Raises:
        DeltafineError: what the refinement would say.

    Examples:
        >>> plan = deltafine.inspect_model("model.keras", skip="conv2")
        >>> [site["name"] for site in plan["sites"] if site["selected"]]
        ['input', 'relu1']
    """
    return plan_of(RefineSettings(model=os.fspath(model), data="", **checked(**settings)))


def plan_of(settings: RefineSettings) -> Preview:
    """The same for the settings of a run."""
    from deltafine.measurement.fitting import fitting
    from deltafine.model import DeltaSettings, load, preview_insertion
    from deltafine.model.custom_objects import import_objects
    from deltafine.model.freezing import set_trainable

    objects = import_objects(settings.custom_objects)
    loaded = load(settings.model, custom_objects=objects, unsafe_lambda=settings.unsafe_lambda)
    fits = fitting(loaded, size=settings.size, frames=settings.frames, clip_output=settings.clip_output)
    sites, deltas = fits.sites(settings.places, settings.skip), DeltaSettings(threshold_per=settings.threshold_per)
    fits.clip_model(sites, deltas)  # whatever stands in the way is found here
    set_trainable(loaded, unfreeze=settings.unfreeze, freeze=settings.freeze)
    return preview_insertion(loaded, sites, deltas)
