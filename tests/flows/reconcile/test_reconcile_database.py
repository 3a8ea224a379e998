"""The oracle's database: whoever presses Ctrl-C while a statement runs has ended the oracle."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator

import numpy as np
import pytest

from flows.errors import AudiopixelError, UsageError
from flows.reconcile.database import Database

LONG = "SELECT max(hash(x + y)) FROM (SELECT unnest(range(3000)) AS y), rows, range(1000000) AS t(x)"
"""Billions of rows, of which none is kept."""
CHUNK = {"of": np.arange(3)}


@pytest.fixture
def ctrl_c() -> Iterator[None]:
    """Python's own handler: what is started in the background by a shell ignores the signal."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.parametrize(
    "ask",
    [
        lambda db: db.run(LONG),
        lambda db: db.all(LONG),
        lambda db: db.first(LONG),
    ],
)
@pytest.mark.usefixtures("ctrl_c")
def test_ctrl_c_within_a_statement_is_an_interrupt_and_no_failed_query(
    ask: Callable[[Database], object],
) -> None:
    db = Database(threads=1)
    db.load("CREATE TABLE rows AS FROM chunk", CHUNK)
    threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGINT)).start()
    with pytest.raises(KeyboardInterrupt):
        ask(db)
    db.insert("rows", [(3,), (4,)])
    assert db.all("FROM rows ORDER BY ALL") == [(of,) for of in range(5)]


def test_a_query_that_is_wrong_is_said_to_be() -> None:
    with pytest.raises(Exception, match="nowhere"):
        Database(threads=1).run("FROM nowhere")


@pytest.mark.parametrize("memory", ["x", "0", "2GB'; select 1", "1e99TB"])
def test_a_memory_that_is_no_size_is_refused(memory: str) -> None:
    with pytest.raises(UsageError, match="takes a size such as 2GB"):
        Database(memory=memory)


def test_a_memory_that_is_too_small_is_said_in_one_line() -> None:
    with pytest.raises(AudiopixelError) as said:
        Database(threads=1, memory="1KB").run("CREATE TABLE rows AS FROM range(100000)")
    assert "not enough memory" in str(said.value)
    assert len(str(said.value).splitlines()) == 1
