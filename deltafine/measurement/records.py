"""What was counted, as named arrays: so that several processes can measure some of the videos each, and one adds up.

Integers are simply added. Floating-point sums depend on the order of their terms, so they are kept apart by *work
item*, a video or a batch of clips, which one process measures whole; they are added up in the order of the work items,
whoever measured them. What several processes count together is thus what one would count alone, to the last bit.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

Record = dict[str, np.ndarray]


def nested(records: Mapping[str, Record]) -> Record:
    """One record of several."""
    return {f"{outer}/{name}": values for outer, record in records.items() for name, values in record.items()}


def inner_record(record: Mapping[str, np.ndarray], outer: str) -> Record:
    """One of the records that were put into one."""
    return {name.removeprefix(f"{outer}/"): values for name, values in record.items() if name.startswith(f"{outer}/")}
