"""What a model must be for delta layers to be put into it; the same for all who do or say so."""

from __future__ import annotations

from typing import TYPE_CHECKING

from deltafine.errors import DeltafineError
from deltafine.model import graph

if TYPE_CHECKING:
    import keras


def require_insertable(model: keras.Model) -> None:
    """Refuse a model that cannot be rewritten and then trained or measured.

    Raises:
        DeltafineError: it is more than a graph of layers, has delta layers already, is quantised, or keeps state from
            call to call.
    """
    graph.require_plain_graph(model)
    require_no_deltas(model)
    for layer in graph.layers_inside(model):
        mode = getattr(layer, "quantization_mode", None)
        if mode is not None:
            raise DeltafineError(
                f"Layer '{layer.name}' of model '{model.name}' is quantised ({mode}): its weights cannot be trained, "
                "and what it computes does not follow changes of its input; give the model as it was before "
                f"model.quantize('{mode}')."
            )
        if getattr(layer, "stateful", False):
            raise DeltafineError(
                f"Layer '{layer.name}' of model '{model.name}' keeps its state from one call to the next "
                "(stateful=True), so what it answers depends on the clip before: build the model again with "
                "stateful=False and any batch size, and give it the same weights."
            )


def require_no_deltas(model: keras.Model) -> None:
    """Refuse a model that already has delta layers.

    Raises:
        DeltafineError: naming the first one.
    """
    from deltafine.layers import DeltaActivation

    for _, layer in graph.all_layers_by_path(model):
        if isinstance(layer, DeltaActivation):
            raise DeltafineError(
                f"Model '{model.name}' already has delta layers ('{layer.name}'): give the original model."
            )
