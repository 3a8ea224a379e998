"""The place of a process in a cluster, and the member that has a key.

Bytewax sends a key to the worker whose number is the key's hash modulo the number of workers: Rust's default
hash, SipHash-1-3 without a key, of the text and a byte 0xff (`stateful_batch` in its `src/operators.rs`). A
shard therefore lives on the same member in every execution with the same number of members, and its files may
lie there alone. A test compares this with the engine.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from typing import Final, NamedTuple

import numpy as np

from flows.errors import SettingsError
from flows.state.siphash import siphash

_END: Final = b"\xff"
_NO_KEY: Final = np.uint64(0)


class Place(NamedTuple):
    """The number of a member, from 0, and the number of members."""

    member: int = 0
    members: int = 1


ALONE: Final = Place()
"""The place of a process that is no member of a cluster."""


def member_of(key: str, members: int) -> int:
    """The member to which the engine sends a key, among `members` with one worker each."""
    if members == 1:
        return 0
    text = key.encode() + _END
    block = np.frombuffer(text + bytes(8), np.uint8)
    return int(siphash(_NO_KEY, _NO_KEY, block, 0, len(text)) % np.uint64(members))


def place_of(arguments: Sequence[str]) -> Place:
    """The place in the arguments or variables of Bytewax's own command.

    Raises:
        SettingsError: a member would have several threads, which saves do not support.
    """
    parser = argparse.ArgumentParser(add_help=False)
    for short, name, variable in (
        ("-i", "--process-id", "BYTEWAX_PROCESS_ID"),
        ("-a", "--addresses", "BYTEWAX_ADDRESSES"),
        ("-w", "--workers-per-process", "BYTEWAX_WORKERS_PER_PROCESS"),
    ):
        parser.add_argument(short, name, default=os.environ.get(variable))
    options, _ = parser.parse_known_args(arguments)
    if options.process_id is None or not options.addresses:
        return ALONE
    if int(options.workers_per_process or 1) > 1:
        raise SettingsError("-w is for one process: with -i and -a each process has one thread")
    return Place(int(options.process_id), len(options.addresses.split(";")))
