"""Places: the tensors of a model where a delta layer can stand, and what a choice among them needs to know."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from deltafine.model.activation_calls import is_activation
from deltafine.model.gates import gate_calls
from deltafine.model.layer_names import Names
from deltafine.model.macs import MacLayer, mac_calls
from deltafine.model.reach import macs_of, reach
from deltafine.model.recurrent import StateValue, states_of
from deltafine.model.time_axis import takes_clips_as_traced, times_of_values, values_with_frames
from deltafine.model.trace import Call, FoldFrames, Trace, UnfoldFrames, Value

INPUT = "input"
NO_TIME = "time is summed up before it: there is no frame before to compare with"
NOT_TIME = "inside TimeDistributed over parts of a frame: there is no frame before to compare with"


@dataclass(frozen=True)
class SitePlan:
    """A traced model with what the search for sites needs to know of it."""

    trace: Trace

    @cached_property
    def macs(self) -> dict[Call, MacLayer]:
        """The calls with MACs."""
        return mac_calls(self.trace)

    @cached_property
    def dense_macs(self) -> int:
        """MACs of the whole model per sample, where known."""
        return sum(entry.dense_macs or 0 for entry in self.macs.values())

    @cached_property
    def still_macs(self) -> dict[Call, int]:
        """MACs per sample, by call, on what no frame changes, such as the zeros around a picture."""
        made = [value for call in self.macs for value in call.outputs]
        moving = reach(self.trace, self.macs, [*self.trace.inputs.values(), *made], ())
        found = {}
        for call, entry in self.macs.items():
            mask = moving.masks.get(call)
            if mask is None:
                found[call] = entry.dense_macs or 0
            elif not mask.all():
                found[call] = macs_of(entry, np.ones_like(mask)) - macs_of(entry, mask)
        return found

    @cached_property
    def gates(self) -> set[Call]:
        """The calls inside gates."""
        return gate_calls(self.trace)

    @cached_property
    def with_frames(self) -> set[Value]:
        """The tensors in which a frame can be told from the one before it."""
        return values_with_frames(self.trace)

    @property
    def without_frames(self) -> str:
        """Why the other tensors are not among them."""
        return NO_TIME if takes_clips_as_traced(self.trace) else NOT_TIME

    @cached_property
    def input_sites(self) -> dict[str, str]:
        """The site of every input of the model by the input's name; layers keep theirs where they are named so."""
        names = Names(call.site_name for call in self.trace.calls)
        several = len(self.trace.inputs) > 1
        return {name: names.free(f"{INPUT}:{name}" if several else INPUT) for name in self.trace.inputs}

    @cached_property
    def delta_names(self) -> dict[str, str]:
        """Path of the delta layer of every place by site name: as the layer, with ``_delta``, where that is free."""
        levels = {path: Names(used) for path, used in self.trace.names.items()}
        found = {}
        for name in self.places:
            path, slash, leaf = name.rpartition("/")
            base, _, index = leaf.replace(":", "_").partition("#")
            level = levels.setdefault(path, Names())
            found[name] = f"{path}{slash}{level.free(f'{base}_delta' + (f'_{index}' if index else ''))}"
        return found

    def is_input(self, site_name: str) -> bool:
        """Whether the site is an input of the model."""
        return site_name in self.input_sites.values()

    def is_further_input(self, site_name: str) -> bool:
        """Whether the site is an input beside the frames, which holds a few numbers."""
        ranks = [len(value.shape) for value in self.trace.inputs.values()]
        return self.is_input(site_name) and len(self.places[site_name][0].shape) < 4 <= max(ranks)

    def is_inside(self, site_name: str) -> bool:
        """Whether the site is inside a layer of which the calls inside stand for its own."""
        return any(site_name.startswith(self.trace.homes[layer]) for layer in self.trace.insides)

    @cached_property
    def places(self) -> dict[str, list[Value]]:
        """Every tensor where a delta layer could stand, by site name, in order of computation.

        Several tensors share a name where a nested model is called several times: it has one set of layers.
        """
        found = {site: [self.trace.inputs[name]] for name, site in self.input_sites.items()}
        for call in self.trace.calls:
            for state in self.states.get(call, ()):
                found.setdefault(f"{call.site_name.split('#')[0]}/{state.product}", []).append(state)
            if len(call.outputs) == 1 and not isinstance(call.operation, FoldFrames | UnfoldFrames):
                found.setdefault(self.trace.site_name(call), []).append(call.outputs[0])
        return found

    @cached_property
    def states(self) -> dict[Call, list[StateValue]]:
        """What recurrent layers that go from frame to frame multiply beside their inputs, where it can be held."""
        if not takes_clips_as_traced(self.trace):
            return {}
        times = times_of_values(self.trace)
        over_time = (call for call in self.macs if (time := times.get(call.inputs[0])) is not None and not time.folded)
        return {call: states_of(call) for call in over_time}

    @cached_property
    def name_of(self) -> dict[Value, str]:
        """The place of each tensor that has one."""
        return {value: name for name, values in self.places.items() for value in values}

    def why_impossible(self, name: str) -> str:
        """Why a delta layer at a place would make no sense, whatever a user says; empty where it does."""
        value = self.places[name][0]
        if self.is_further_input(name) and "float" not in value.dtype:
            return "an input of whole numbers beside the frames: all of its changes are sent"
        return "" if isinstance(value, StateValue) or value in self.with_frames else self.without_frames

    @cached_property
    def activations(self) -> dict[str, Call]:
        """The first call of each activation by site name."""
        found: dict[str, Call] = {}
        for call in self.trace.calls:
            if is_activation(call):
                found.setdefault(self.trace.site_name(call), call)
        return found
