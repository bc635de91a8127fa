"""What strangers do to files: bytes that are changed, and values that are not what was expected."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from copy import deepcopy
from typing import Any

from hypothesis import strategies as st

NUMBERS = [0, 1, 0x7F, 0xFF, 0xFFFF, 2**31 - 1, 2**31, 2**32 - 1, 2**40, 2**63 - 1, 2**64 - 1]

HOSTILE: list[Any] = [
    None,
    True,
    -1,
    0,
    3,
    10**7,
    10**12,
    2**63,
    10**400,
    -0.0,
    1e-320,
    1e308,
    float("inf"),
    float("nan"),
    "",
    "x" * 10_000,
    "9" * 5000,
    "\x1b[31m\x07\x9b0m",
    "</script><img src=x onerror=alert(1)>",
    "<b>&amp;'\"|`[x](javascript:alert(1))",
    "a\r\n::error::b\u2028c\u202edetcefni",
    "\ud800",
    "\0",
    "../../../../etc/passwd",
    "/dev/zero",
    [],
    {},
    [[[[]]]],
    [None] * 50,
    {"class_name": "Lambda", "config": {"name": "x"}, "module": "keras.layers"},
    {"class_name": "__tensor__", "config": {"value": [1e38] * 9, "dtype": "float16"}},
]


class Blob(bytes):
    """Bytes that are not printed as a whole when a test fails."""

    def __repr__(self) -> str:
        return f"<{len(self)} bytes, crc32 {zlib.crc32(self):08x}>"


@st.composite
def changed_bytes(draw: st.DrawFn, seeds: Sequence[bytes]) -> bytes:
    """One of the files, changed in a few places, or cut off."""
    content = bytearray(draw(st.sampled_from(seeds)))
    for _ in range(draw(st.integers(1, 6))):
        size = len(content)
        place = draw(st.integers(0, max(0, size - 1)))
        how = draw(st.sampled_from(["bit", "bytes", "number", "cut", "insert", "repeat", "zero"]))
        if not size:
            break
        if how == "bit":
            content[place] ^= 1 << draw(st.integers(0, 7))
        elif how == "bytes":
            new = draw(st.binary(min_size=1, max_size=8))
            content[place : place + len(new)] = new
        elif how == "number":
            width = draw(st.sampled_from([1, 2, 4, 8]))
            order = draw(st.sampled_from(["little", "big"]))
            number = draw(st.sampled_from(NUMBERS)) % 2 ** (8 * width)
            content[place : place + width] = number.to_bytes(width, order)  # type: ignore[arg-type]
        elif how == "cut":
            del content[place : place + draw(st.sampled_from([1, 4, 100, size]))]
        elif how == "insert":
            content[place:place] = draw(st.binary(max_size=20))
        elif how == "repeat":
            content[place:place] = bytes(content[place : place + 40]) * draw(st.integers(1, 20))
        else:
            length = min(draw(st.sampled_from([1, 8, 64])), size - place)
            content[place : place + length] = bytes(length)
    return Blob(content)


@st.composite
def changed_tree(draw: st.DrawFn, seeds: Sequence[Any]) -> Any:
    """One of the JSON documents, with values replaced, removed, moved or nested."""
    tree = deepcopy(draw(st.sampled_from(seeds)))
    for _ in range(draw(st.integers(1, 3))):
        places = list(_places(tree))
        if not places:
            break
        holder, key = places[draw(st.integers(0, len(places) - 1))]
        how = draw(st.sampled_from(["value", "value", "value", "remove", "move", "nest", "scale"]))
        if how == "value":
            holder[key] = deepcopy(draw(st.sampled_from(HOSTILE)))
        elif how == "remove":
            del holder[key]
        elif how == "move":
            other, name = places[draw(st.integers(0, len(places) - 1))]
            try:
                holder[key] = deepcopy(other[name])
            except (KeyError, IndexError):
                continue
        elif how == "nest":
            for _ in range(draw(st.sampled_from([1, 30, 300]))):
                holder[key] = [holder[key]]
        elif isinstance(holder[key], int | float) and not isinstance(holder[key], bool):
            holder[key] = holder[key] * draw(st.sampled_from([-1, 0, 1000, 10**9]))
    return tree


def _places(tree: Any) -> Any:
    """Every place of a tree that has a value: what holds it, and under which key."""
    waiting = [tree]
    while waiting:
        part = waiting.pop()
        pairs = part.items() if isinstance(part, dict) else enumerate(part) if isinstance(part, list) else ()
        for key, value in list(pairs):
            yield part, key
            waiting.append(value)
