"""Which stored weights of an HDF5 file belong to which variables.

Keras stores the weights of each layer of a model in one list: those that it trains, then the others. For a nested
model that order follows the ``trainable`` flags inside it, which not every file holds, so it says little by itself.
Each weight has a name, such as ``conv2d_3/kernel:0``, that holds the name of the layer inside. The names decide where
they fit; where they do not (early files, layers of the user's own), the order that the flags in the file make decides,
if the shapes allow one only.
"""

from __future__ import annotations

import itertools
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import h5py
import keras
import numpy as np

from deltafine.errors import DeltafineError
from deltafine.model import graph
from deltafine.model.legacy.configs import cleaned_name

_UNKNOWN_FLAGS = 8
"""So many layers without a flag may be inside a layer; each doubles the orders to be tried."""

Description = Mapping[str, Any]


@dataclass(frozen=True)
class Stored:
    """One weight as it lies in the file: its name, such as ``conv2d/kernel:0``, and its values."""

    name: str
    values: np.ndarray

    @property
    def scope(self) -> list[str]:
        """The names of what it lies in, outermost first."""
        return self.name.split("/")[:-1]

    @property
    def own_name(self) -> str:
        """Its name in its layer."""
        return self.name.split("/")[-1].split(":")[0]


@dataclass(frozen=True, eq=False)
class StoredLayer:
    """A layer of the file, with the layers inside it where it is a model or wraps one.

    Attributes:
        path: names of what it lies in, outermost first, and its own.
        layer: as it was built again.
        trainable: the flag in the file; None where the file has none.
        inner: the layers inside it; of a model of Keras 2, in its order.
        wraps: whether it is a layer around a model and no model itself.
    """

    path: tuple[str, ...]
    layer: keras.layers.Layer
    trainable: bool | None
    inner: tuple[StoredLayer, ...] = ()
    wraps: bool = False

    def leaves(self) -> Iterator[StoredLayer]:
        """The layers inside that consist of no others."""
        if not self.inner:
            yield self
        for entry in self.inner:
            yield from entry.leaves()

    def all(self) -> Iterator[StoredLayer]:
        """This and everything inside, outer ones first."""
        yield self
        for entry in self.inner:
            yield from entry.all()


def stored_layer(description: Description, layer: keras.layers.Layer, above: tuple[str, ...] = ()) -> StoredLayer:
    """A layer as the file describes it, and everything inside."""
    config = description["config"]
    name = _name_in(description) or layer.name
    flag = config.get("trainable") if isinstance(config, dict) else None
    path, inner = (*above, name), config.get("layer") if isinstance(config, dict) else None
    if graph.is_graph(layer):
        listed = config if isinstance(config, list) else config.get("layers")
        if not isinstance(listed, list):  # a class that makes its layers itself says nothing of them
            return _undescribed(layer, above)
        by_name = {one.name: one for one in layer.layers}
        found = [(one, by_name.get(_name_in(one))) for one in listed]
        inside = tuple(stored_layer(one, built, path) for one, built in found if built is not None)
        return StoredLayer(path, layer, flag, inside)
    if isinstance(inner, dict) and graph.is_graph(getattr(layer, "layer", None)):
        return StoredLayer(path, layer, flag, (stored_layer(inner, layer.layer, path),), wraps=True)
    return StoredLayer(path, layer, flag)


def _undescribed(layer: keras.layers.Layer, above: tuple[str, ...]) -> StoredLayer:
    path = (*above, layer.name)
    inside = layer.layers if graph.is_graph(layer) else ()
    return StoredLayer(path, layer, None, tuple(_undescribed(one, path) for one in inside))


def _name_in(description: Description) -> str:
    config = description["config"]
    named = config if isinstance(config, dict) and "name" in config else description
    return cleaned_name(named.get("name") or "")


def set_flags(whole: StoredLayer) -> None:
    """Set the ``trainable`` flags of the file. A model's own flag also sets those inside it, so it goes first."""
    for entry in whole.all():
        if entry.trainable is not None and entry.layer.trainable != entry.trainable:
            entry.layer.trainable = entry.trainable


def read_weights(group: h5py.Group, whole: StoredLayer, keras_version: int) -> None:
    """Assign the weights of every layer of the outermost model.

    Args:
        group: ``model_weights`` of an HDF5 file.
        whole: the model; the flags inside it are set.
        keras_version: 2, for 1 and 2, or 3: which Keras wrote the file.

    Raises:
        DeltafineError: the weights are not those of the model, or it cannot be told which is which.
    """
    by_name = {entry.path[-1]: entry for entry in whole.inner}
    missing = {name for name, entry in by_name.items() if entry.layer.weights}
    for name in _texts(group, "layer_names"):
        stored = [Stored(weight, np.asarray(group[name][weight])) for weight in _texts(group[name], "weight_names")]
        if not stored:
            continue
        entry = by_name.get(cleaned_name(name))
        if entry is None:
            raise DeltafineError(f"it holds weights of a layer '{name}', which its model does not have.")
        _assign(entry, stored, keras_version)
        missing.discard(entry.path[-1])
    if missing:
        raise DeltafineError(f"it holds no weights of layer '{min(missing)}': save the model again, with its weights.")


def _texts(group: h5py.Group, name: str) -> list[str]:
    """An attribute that is a list of names; a long one is cut into ``name0``, ``name1``, ..."""
    if name in group.attrs:
        return [text(value) for value in group.attrs[name]]
    found: list[str] = []
    for number in itertools.count():
        if f"{name}{number}" not in group.attrs:
            break
        found += [text(value) for value in group.attrs[f"{name}{number}"]]
    return found


def text(value: str | bytes) -> str:
    """An attribute as text, however it was stored."""
    return value.decode("utf-8") if isinstance(value, bytes) else str(value)


def _assign(entry: StoredLayer, stored: Sequence[Stored], keras_version: int) -> None:
    leaves = [leaf for leaf in entry.leaves() if leaf.layer.weights]
    matched = _by_name(leaves, stored) or _by_order(entry, stored, keras_version)
    for target, weight in matched:
        target.assign(weight.values)
    for leaf in leaves:
        if isinstance(leaf.layer, keras.layers.Normalization):
            leaf.layer.finalize_state()


_Matched = list[tuple[keras.Variable, Stored]]


def _by_name(leaves: Sequence[StoredLayer], stored: Sequence[Stored]) -> _Matched | None:
    """Variables and their weights, where every name says whose it is and all shapes fit."""
    for like in (_is_called, _is_called_again):
        of_leaf: dict[StoredLayer, list[Stored]] = defaultdict(list)
        for weight in stored:
            owners = _owners(leaves, weight, like)
            if len(owners) != 1:
                break
            of_leaf[owners[0]].append(weight)
        else:
            matched = [_within(leaf, of_leaf[leaf]) for leaf in leaves]
            if all(one is not None for one in matched):
                return [pair for one in matched for pair in one or ()]
    return None


def _owners(leaves: Sequence[StoredLayer], weight: Stored, like: keras.Variable) -> list[StoredLayer]:
    """The layers that the weight's name names; of those called alike, the ones in models that it names as well."""
    named = [leaf for leaf in leaves if _position(leaf.path[-1], weight.scope, like) is not None]
    if len(named) < 2:
        return named
    scores = [sum(_position(name, weight.scope, like) is not None for name in leaf.path) for leaf in named]
    return [leaf for leaf, score in zip(named, scores, strict=True) if score == max(scores)]


def _position(name: str, scope: Sequence[str], like: keras.Variable) -> int | None:
    """Where a name stands in a scope; a name that had slashes is spread over several members."""
    for start in range(len(scope)):
        for end in range(start + 1, len(scope) + 1):
            if like("_".join(scope[start:end]), name):
                return start
    return None


def _is_called(scope: str, name: str) -> bool:
    return scope == name


def _is_called_again(scope: str, name: str) -> bool:
    """TensorFlow 1 numbered the names of layers that were made a second time in one process."""
    return re.fullmatch(re.escape(name) + r"_\d+", scope) is not None


def _within(leaf: StoredLayer, stored: Sequence[Stored]) -> _Matched | None:
    """The weights of one layer: by their own names where these are known, else in order; None if they do not fit."""
    targets = _variables(leaf)
    if isinstance(leaf.layer, keras.layers.Normalization):
        stored = stored[: len(targets)]  # Keras 2 also kept how many samples it had adapted to
    by_name = {weight.own_name: weight for weight in stored}
    if len(by_name) == len(stored) and set(by_name) == {target.name for target in targets}:
        stored = [by_name[target.name] for target in targets]
    if [weight.values.shape for weight in stored] != [tuple(target.shape) for target in targets]:
        return None
    return list(zip(targets, stored, strict=True))


def _by_order(entry: StoredLayer, stored: Sequence[Stored], keras_version: int) -> _Matched:
    """Variables and their weights, in the one order that Keras can have written."""
    if not entry.inner:
        matched = _within(entry, stored)
        if matched is None:
            raise _misfit(entry, stored, _variables(entry))
        return matched
    unknown = [one for one in entry.all() if one.trainable is None and (one.inner or one.layer.weights)]
    orders: dict[tuple[int, ...], list[keras.Variable]] = {}
    for flags in itertools.product((True, False), repeat=len(unknown)) if len(unknown) <= _UNKNOWN_FLAGS else ():
        order = _Order(dict(zip(unknown, flags, strict=True)), keras_version).whole(entry)
        orders.setdefault(tuple(map(id, order)), order)
    shapes = [weight.values.shape for weight in stored]
    fitting = [order for order in orders.values() if [tuple(variable.shape) for variable in order] == shapes]
    if len(fitting) == 1:
        return list(zip(fitting[0], stored, strict=True))
    if orders and not fitting:
        raise _misfit(entry, stored, next(iter(orders.values())))
    raise DeltafineError(
        f"the order of the weights of layer '{entry.path[-1]}' depends on what was frozen in it, and neither their "
        "names nor their shapes tell them apart: load it with the Keras that wrote it, and save it as .keras."
    )


class _Order:
    """The order in which Keras lists the weights of a model.

    Args:
        flags: ``trainable`` of the layers for which the file has none.
        keras_version: in Keras 2 every model inside has a say, in Keras 3 the outermost and the weights themselves.
    """

    def __init__(self, flags: Mapping[StoredLayer, bool], keras_version: int) -> None:
        self._flags = flags
        self._version = keras_version

    def whole(self, entry: StoredLayer) -> list[keras.Variable]:
        if self._version < 3:
            return [*self._trained(entry), *self._others(entry)]
        weights = [weight for leaf in entry.leaves() for weight in leaf.layer.weights]
        return sorted(weights, key=lambda weight: not weight.trainable) if self._trains(entry) else weights

    def _trains(self, entry: StoredLayer) -> bool:
        return self._flags.get(entry, True) if entry.trainable is None else entry.trainable

    def _trained(self, entry: StoredLayer) -> list[keras.Variable]:
        if not self._trains(entry):
            return []
        if not entry.inner:
            return list(entry.layer.trainable_weights)
        return [weight for one in entry.inner for weight in self._trained(one)]

    def _others(self, entry: StoredLayer) -> list[keras.Variable]:
        if not entry.inner:
            return list(entry.layer.non_trainable_weights) if self._trains(entry) else _variables(entry)
        others = [weight for one in entry.inner for weight in self._others(one)]
        if self._trains(entry):
            return others
        if entry.wraps:
            return [weight for leaf in entry.leaves() for weight in _variables(leaf)]
        return [*(weight for one in entry.inner for weight in self._trained(one)), *others]


def _variables(leaf: StoredLayer) -> list[keras.Variable]:
    return [*leaf.layer.trainable_weights, *leaf.layer.non_trainable_weights]


def _misfit(entry: StoredLayer, stored: Sequence[Stored], wanted: Sequence[keras.Variable]) -> DeltafineError:
    shapes = [weight.values.shape for weight in stored], [tuple(variable.shape) for variable in wanted]
    return DeltafineError(
        f"The weights of layer '{entry.path[-1]}' have shapes {shapes[0]}, the layer wants {shapes[1]}."
    )
