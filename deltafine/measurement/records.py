"""What was counted, as named arrays: so that several processes can measure a part each, and one adds up.

Integers are simply added. Floating-point sums depend on the order of their terms, so they are kept apart by *unit*, a
video or a batch of clips, which one process measures whole; they are added up in the order of the units, by whoever
measured them. What several processes count together is thus what one would count alone, to the last bit.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

Record = dict[str, np.ndarray]


def nested(parts: Mapping[str, Record]) -> Record:
    """One record of several."""
    return {f"{part}/{name}": values for part, record in parts.items() for name, values in record.items()}


def part_of(record: Mapping[str, np.ndarray], part: str) -> Record:
    """One of the records that were put into one."""
    return {name.removeprefix(f"{part}/"): values for name, values in record.items() if name.startswith(f"{part}/")}
