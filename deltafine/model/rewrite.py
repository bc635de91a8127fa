"""The rewriting of a graph: the same calls with cloned layers, and delta layers in between."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, TypeVar

import keras

from deltafine.errors import DeltafineError
from deltafine.layers.state_deltas import GATED, STATE, DeltaStates, StateDelta, with_state_deltas
from deltafine.layers.time import FoldTime, UnfoldTime
from deltafine.model import graph, keras_private
from deltafine.model.activation_calls import has_fused_activation
from deltafine.model.augmentation_layers import is_augmentation
from deltafine.model.cloning import clone
from deltafine.model.composite_layers import Inside
from deltafine.model.delta_settings import DeltaSettings
from deltafine.model.layer_names import Names
from deltafine.model.recurrent import StateValue
from deltafine.model.sites import Site

if TYPE_CHECKING:
    from deltafine.layers import DeltaActivation

AnyDelta = TypeVar("AnyDelta", bound="DeltaActivation")


class Rewriter:
    """Rewrites one model; keeps the clones, so that a shared layer stays shared.

    Args:
        sites: the selected sites.
        settings: what their delta layers are set to.
    """

    def __init__(self, sites: Sequence[Site], settings: DeltaSettings) -> None:
        self._sites = {site.name: site for site in sites}
        self._trace = sites[0].plan.trace if sites else None
        self._settings = settings
        self._split = {_without_index(name) for name in self._sites}
        self._clones: dict[int, keras.layers.Layer] = {}
        self._delta_names = {site.delta_name for site in sites}
        self._fused: dict[int, keras.layers.Layer] = {}
        self._graphs: dict[int, tuple[keras.Model, bool]] = {}
        self._deltas: dict[str, DeltaActivation] = {}
        # Old and new layers in order of creation, and the same for nested models: parents before children.
        self._layers: list[tuple[keras.layers.Layer, keras.layers.Layer]] = []
        self._models: list[tuple[keras.layers.Layer, keras.Model]] = []

    def names(self, model: graph.Graph, prefix: str) -> Names:
        """Names on the level of a graph with this path: taken are those of the graph and of its delta layers."""
        outer = prefix.rstrip("/")
        deltas = (name.rpartition("/") for name in self._delta_names)
        return Names([*graph.operation_names(model), *(leaf for path, _, leaf in deltas if path == outer)])

    def after(self, site_name: str, value: Any, clock: keras.KerasTensor | None, policy: Any, names: Names) -> Any:
        """The value passed through the site's delta layer, or as it is where there is no site."""
        site = self._sites.get(site_name)
        if site is None:
            return value
        if site_name not in self._deltas:
            from deltafine.layers import DeltaActivation

            self._deltas[site_name] = self._make(DeltaActivation, site, policy)
        delta = names.keep(self._deltas[site_name])
        return delta(value) if clock is None else delta(value, clock)

    def rewrite(
        self,
        model: graph.Graph,
        inputs: Sequence[keras.KerasTensor],
        clock: keras.KerasTensor | None,
        prefix: str,
        names: Names,
    ) -> list[keras.KerasTensor]:
        """Call everything that the model calls again, on the given tensors.

        Args:
            model: a graph; its own level is rewritten inline, nested models become nested models.
            inputs: one symbolic tensor per input of the graph.
            clock: the clock for the delta layers; None where the tensors have a time axis of their own.
            prefix: path of the model, with a slash behind it; empty for the outermost.
            names: on the level of the graph.

        Returns:
            The outputs, flat.
        """

        def on_call(name: str, node: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
            operation = node.operation
            if graph.is_graph(operation):
                inner = graph.nested_inputs(operation, args, kwargs)
                called = {key: value for key, value in kwargs.items() if key == "training" and value is not None}
                return self._call_nested(operation, operation.name, inner, called, clock, prefix + name, names)
            if isinstance(operation, keras.layers.TimeDistributed) and clock is None:
                # Without delta layers inside too: what is to be measured must be seen.
                return self._call_time_distributed(operation, args, kwargs, prefix, prefix + name, names)
            site_name = prefix + name
            if (inside := self._inside(operation)) is not None:
                given = inside.inputs(args, kwargs)
                made = self._call_nested(inside.function, operation.name, given, {}, clock, site_name, names, operation)
                return self.after(site_name, made[0], clock, operation.dtype_policy, names) if len(made) == 1 else made
            if not isinstance(operation, keras.layers.Layer):
                # Operations without state can be called again as they are.
                outputs = names.keep(operation)(*args, **kwargs)
                policy: Any = getattr(outputs, "dtype", None)
            else:
                outputs = self._call_layer(operation, args, kwargs, prefix, names)
                policy = operation.dtype_policy
            return self.after(site_name, outputs, clock, policy, names)

        return graph.walk(model, inputs, on_call)

    def _inside(self, operation: keras.Operation) -> Inside | None:
        """What is inside a layer where a delta layer is to stand there."""
        inside = None if self._trace is None else self._trace.insides.get(id(operation))
        if inside is None or self._trace is None:
            return None
        home = self._trace.homes[id(operation)]
        return inside if any(name.startswith(home) for name in self._sites) else None

    def _is_within_opened(self, prefix: str) -> bool:
        trace = self._trace
        return trace is not None and any(prefix.startswith(trace.homes[layer]) for layer in trace.insides)

    def finish(self, model: keras.Model, result: keras.Model) -> None:
        """Copy weights and ``trainable`` flags from the old layers and models to the new ones."""
        # Setting the flag of a model sets those inside it, so parents go first and children set theirs again.
        for old, new in [(model, result), *self._models, *self._layers]:
            _copy_trainable(old, new)
        for old, new in self._layers:
            inside = [_layers_of_layer(layer) for layer in (old, new)]
            if len(inside[0]) == len(inside[1]):  # one whose activation was split off has nothing else in it
                for one, other in zip(*inside, strict=True):
                    _copy_trainable(one, other)
        for delta in self._deltas.values():
            delta.trainable = True  # a frozen model around it says nothing of its thresholds
        for old, new in self._layers:
            _copy_weights(old, new)

    def _call_layer(
        self,
        layer: keras.layers.Layer,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        prefix: str,
        names: Names,
        name: str = "",
    ) -> Any:
        """Call the clone of a layer, a fused activation split off where a delta layer will follow."""
        if isinstance(layer, keras.layers.Lambda):
            return names.keep(layer)(*args, **kwargs)
        if is_augmentation(layer):
            return args[0]
        name = name or layer.name
        if id(layer) not in self._clones and (deltas := self._of_states(f"{prefix}{name}", layer.dtype_policy)):
            self._clones[id(layer)] = with_state_deltas(clone(layer, name=name), deltas)
            self._layers.append((layer, self._clones[id(layer)]))
        sizes = _sizes(layer, args) if self._is_within_opened(prefix) else {}
        if prefix + name not in self._split or not has_fused_activation(layer):
            return names.keep(self._clone(layer, name=name, **sizes))(*args, **kwargs)
        linear = names.keep(self._clone(layer, name=name, activation=None, **sizes))
        if id(layer) not in self._fused:
            self._fused[id(layer)] = self._activation_of(layer, names.free(f"{name}_activation"))
        return names.keep(self._fused[id(layer)])(linear(*args, **kwargs))

    def _of_states(self, path: str, policy: Any) -> dict[str, StateDelta]:
        """New delta layers for the states of the recurrent layer that is called there, by product."""
        found = {}
        for product in (STATE, GATED):
            site = self._sites.get(f"{path}/{product}")
            if site is not None and isinstance(site.plan.places[site.name][0], StateValue):
                found[product] = self._deltas[site.name] = self._make(StateDelta, site, policy)
        return found

    def _make(self, kind: type[AnyDelta], site: Site, policy: Any) -> AnyDelta:
        name = site.delta_name.rpartition("/")[2]
        return kind(name=name, dtype=policy, **self._settings.arguments(site.name))

    def _clone(self, layer: keras.layers.Layer, **changes: Any) -> keras.layers.Layer:
        if id(layer) not in self._clones:
            self._clones[id(layer)] = clone(layer, **changes)
            self._layers.append((layer, self._clones[id(layer)]))
        return self._clones[id(layer)]

    def _activation_of(self, layer: keras.layers.Layer, name: str) -> keras.layers.Layer:
        """A layer of its own for the activation fused into another."""
        if isinstance(layer.activation, keras.layers.Layer):
            activation = clone(layer.activation, name=name)
            self._layers.append((layer.activation, activation))
            return activation
        return keras.layers.Activation(layer.activation, name=name, dtype=layer.dtype_policy)

    def _call_nested(
        self,
        model: graph.Graph,
        new_name: str,
        inputs: list[keras.KerasTensor],
        kwargs: dict[str, Any],
        clock: keras.KerasTensor | None,
        path: str,
        names: Names,
        owner: keras.layers.Layer | None = None,
    ) -> Any:
        """Call the rewritten form of a nested model, or of what is inside its owner.

        The first call makes it, and names its sites.
        """
        if id(model) not in self._graphs:
            has_sites = any(name.startswith(f"{path}/") for name in self._sites)
            with_clock = has_sites and clock is not None
            self._graphs[id(model)] = self._nested(model, new_name, f"{path}/", with_clock, owner or model)
        new, with_clock = self._graphs[id(model)]
        outputs = keras.tree.flatten(names.keep(new)([*inputs, clock] if with_clock else inputs, **kwargs))
        return keras.tree.pack_sequence_as(graph.output_structure(model), outputs)

    def _nested(
        self, model: graph.Graph, new_name: str, prefix: str, with_clock: bool, owner: Any
    ) -> tuple[keras.Model, bool]:
        names = self.names(model, prefix)
        inputs = [names.input(tensor.name, tensor.shape, tensor.dtype) for tensor in graph.input_tensors(model)]
        place = len(self._models)
        clock = names.input(names.free("clock"), (None,), "int32") if with_clock else None
        outputs = self.rewrite(model, inputs, clock, prefix, names)
        new = names.model([*inputs, clock] if with_clock else inputs, outputs, new_name)
        self._models.insert(place, (owner, new))
        return new, with_clock

    def _call_time_distributed(
        self,
        wrapper: keras.layers.Layer,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        prefix: str,
        path: str,
        names: Names,
    ) -> Any:
        """Fold time into the batch, call the rewritten inside once on all frames, and unfold."""
        clips = args[0] if args else kwargs["inputs"]
        if keras_private.is_masked(clips):
            raise DeltafineError(f"Layer '{wrapper.name}' is TimeDistributed over masked frames: remove the mask.")
        name, inner = path.rpartition("/")[2].replace("#", "_"), wrapper.layer
        frames, clock = names.make(FoldTime, f"{name}_fold", dtype=clips.dtype)(clips)
        if graph.is_graph(inner):
            result = self._call_nested(inner, wrapper.name, [frames], {}, clock, path, names)
        else:
            result = self._call_layer(inner, (frames,), {}, prefix, names, name=wrapper.name)
            result = self.after(path, result, clock, inner.dtype_policy, names)
        return names.make(UnfoldTime, f"{name}_unfold", dtype=result.dtype)(result, clock)


def weights_of_layer(layer: keras.layers.Layer) -> list[keras.Variable]:
    """The weights of a layer but for those of the delta layers of its states."""
    deltas = layer.state_deltas.values() if isinstance(layer, DeltaStates) else ()
    others = {id(weight) for delta in deltas for weight in delta.weights}
    return [weight for weight in layer.weights if id(weight) not in others]


def _layers_of_layer(layer: keras.layers.Layer) -> list[keras.layers.Layer]:
    """The layers inside one but for the delta layers of its states."""
    inside = keras_private.layers_within(layer, include_self=False)
    return [one for one in inside if not isinstance(one, StateDelta)]


def _sizes(layer: keras.layers.Layer, args: tuple[Any, ...]) -> dict[str, Any]:
    """What to change in an EinsumDense that leaves sizes of its output open, as those inside attention do."""
    if not isinstance(layer, keras.layers.EinsumDense) or None not in layer.compute_output_shape(args[0].shape)[1:]:
        return {}
    shape = tuple(keras.Operation.compute_output_spec(layer, *args).shape)[1:]
    return {} if None in shape else {"output_shape": shape}


def _without_index(site_name: str) -> str:
    outer, slash, leaf = site_name.rpartition("/")
    return outer + slash + leaf.split("#")[0]


def _copy_trainable(old: keras.layers.Layer, new: keras.layers.Layer) -> None:
    if new.trainable != old.trainable:
        new.trainable = old.trainable


def _copy_weights(old: keras.layers.Layer, new: keras.layers.Layer) -> None:
    if not old.built:
        return
    inside = {id(weight) for weight in getattr(getattr(old, "activation", None), "weights", ())}
    sources, targets = list(old.weights), weights_of_layer(new)
    if len(sources) != len(targets):
        sources = [weight for weight in sources if id(weight) not in inside]
    shapes = [tuple(weight.shape) for weight in sources]
    if shapes != [tuple(weight.shape) for weight in targets]:
        raise DeltafineError(
            f"Layer '{old.name}' of type {type(old).__name__} cannot be copied: rebuilt from its own configuration "
            "it has other weights; its get_config() must hold all that it was made with."
        )
    for source, target in zip(sources, targets, strict=True):
        target.assign(source)
