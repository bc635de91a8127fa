"""The numbers that a model with further inputs is given with the frames of a data set."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from deltafine.model.further_inputs import further_inputs
from deltafine.video import Dataset
from deltafine.video.further_values import Wanted, given_values, values_for

if TYPE_CHECKING:
    import keras


def wanted_by(model: keras.Model) -> list[Wanted]:
    """What a model takes with each frame beside its pixels.

    Raises:
        DeltafineError: as for ``further_inputs``.
    """
    return [one for further in further_inputs(model) for one in further.wanted]


def sources_of(data: Dataset) -> list[str]:
    """The inputs that a data set gives beside its frames, each with where its numbers come from."""
    further = data.further
    if further is None:
        return []
    found: dict[str, list[str]] = {}
    for one, column in zip(further.wanted, further.constants, strict=True):
        found.setdefault(one.input, []).append(one.column if column is None else f"{column:g}")
    from_list = {one.input for one, constant in zip(further.wanted, further.constants, strict=True) if constant is None}
    return [
        f"{name} ({'column' if len(values) == 1 else 'columns'} {', '.join(values)} of {further.listing})"
        if name in from_list
        else f"{name} ({', '.join(values)} in all frames)"
        for name, values in found.items()
    ]


def give_inputs(model: keras.Model, given: Sequence[str], *sets: Dataset) -> None:
    """Let data sets give frames with what a model takes beside them: columns of their lists, or constants.

    Args:
        model: of frames, or a clip model.
        given: constants of the user, each as ``name=value``.
        sets: the data sets; one may be named twice.

    Raises:
        DeltafineError: an input has no column and no constant, or what it has is not what the model takes.
    """
    wanted = wanted_by(model)
    constants = given_values(given, wanted)
    for data in {id(one): one for one in sets}.values():
        data.give_further(values_for(wanted, data.columns, constants, str(data.path)))
        if data.columns is not None and data.further is not None and not data.further.constant:
            data.leave_out_note(data.columns.note)
