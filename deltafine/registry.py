"""Members of a kind by name: how a format, a layout or anything else that can be added is found."""

from __future__ import annotations

import difflib
import importlib
import warnings
from collections.abc import Iterator, Mapping
from typing import Generic, Protocol, TypeVar, cast

from deltafine.errors import DeltafineError, DeltafineWarning


class Named(Protocol):
    """Anything that has a name."""

    @property
    def name(self) -> str: ...


Member = TypeVar("Member", bound=Named)


class Registry(Generic[Member]):
    """What there is of one kind, in a stated order.

    Args:
        what: one of the kind is called, such as ``"report format"``.
        own: name of each member of deltafine's own, and where its class is, ``"module:Class"``. A module is imported
            when its member is first used, so that names alone cost nothing.
        renamed: names in earlier versions, and what they are now.
    """

    def __init__(self, what: str, own: Mapping[str, str], renamed: Mapping[str, str] | None = None) -> None:
        self._what = what
        self._places = dict(own)
        self._renamed = dict(renamed or {})
        self._members: dict[str, Member] = {}
        self._names = list(own)

    @property
    def names(self) -> tuple[str, ...]:
        """In the order in which they were registered, deltafine's own first."""
        return tuple(self._names)

    def register(self, member: Member, *, first: bool = False) -> None:
        """Have it found by its name from now on; with ``first``, before all others where they are tried in turn.

        Raises:
            ValueError: the name is taken.
        """
        if member.name in self._names:
            raise ValueError(f"there is a {self._what} of the name '{member.name}' already")
        self._members[member.name] = member
        self._names.insert(0 if first else len(self._names), member.name)

    def remove(self, name: str) -> None:
        """Forget one that was registered.

        Raises:
            KeyError: none of that name was.
        """
        del self._members[name]
        self._names.remove(name)

    def get(self, member: str | Member) -> Member:
        """The member of a name; a member itself is given back.

        Raises:
            DeltafineError: there is none of the name.
        """
        if not isinstance(member, str):
            return member
        if member in self._renamed and member not in self._names:
            new = self._renamed[member]
            warnings.warn(f"The {self._what} '{member}' is called '{new}' now.", DeltafineWarning, stacklevel=2)
            member = new
        if member not in self._names:
            near = difflib.get_close_matches(member, self._names, 1) or self._names
            raise DeltafineError(f"There is no {self._what} '{member}': choose {', '.join(near)}.")
        if member not in self._members:
            module, _, name = self._places[member].partition(":")
            self._members[member] = cast(Member, getattr(importlib.import_module(module), name)())
        return self._members[member]

    def __iter__(self) -> Iterator[Member]:
        return map(self.get, self.names)
