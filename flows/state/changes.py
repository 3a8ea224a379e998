"""The list of a table's changed slots: a save copies these rows, and reads no others.

A loop that changes a slot sets the slot's mark, and lists the slot if the mark was not set. Each slot is
therefore listed once, and a list with as many places as the table has slots is never full. A list takes
memory only as far as it is filled. Code that moves slots rebuilds the list.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from flows.state.arrays import U32, Int, mapped_zeros
from flows.state.kernel import lean


def no_changes(slots: int) -> U32:
    """An empty list for a table, uint32[slots + 1]: the number of listed slots, then their numbers."""
    changes: U32 = mapped_zeros((slots + 1,), np.uint32)
    return changes


@lean
def note_change(changes: U32, slot: Int) -> None:
    """List a slot that is not in the list."""
    changes[0] += np.uint32(1)
    changes[changes[0]] = np.uint32(slot)


@lean
def _list_marked(words: Any, mark: Int, changes: U32) -> None:
    for slot in range(len(words)):
        if words[slot] & mark:
            note_change(changes, slot)


def marked(words: Any, mark: Int) -> U32:
    """The list for a rebuilt table: the slots whose word in `words` has the mark."""
    changes = no_changes(len(words))
    _list_marked(words, mark, changes)
    return changes
