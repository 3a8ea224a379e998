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
_PRESSED = (signal.SIGINT, signal.SIGALRM)
CHUNK = {"of": np.arange(3)}


@pytest.fixture
def ctrl_c() -> Iterator[None]:
    """Python's own handler, of a timer, too: what a shell starts in the background ignores the signal."""
    pressed = {which: signal.signal(which, signal.default_int_handler) for which in _PRESSED}
    yield
    for which, handler in pressed.items():
        signal.signal(which, handler)


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


class _InterruptedText:
    """A value in whose conversion somebody presses Ctrl-C."""

    def __str__(self) -> str:
        raise KeyboardInterrupt


def test_ctrl_c_while_the_database_takes_over_a_column_is_an_interrupt() -> None:
    values = np.empty(3, dtype=object)
    values[1] = _InterruptedText()
    db = Database(threads=1)
    with pytest.raises(KeyboardInterrupt):
        db.load("CREATE TABLE rows AS FROM chunk", {"of": values})
    db.load("CREATE TABLE rows AS FROM chunk", CHUNK)


@pytest.mark.usefixtures("ctrl_c")
def test_ctrl_c_at_any_moment_of_an_insert_is_an_interrupt() -> None:
    db = Database(threads=1)
    db.run("CREATE TABLE rows (name VARCHAR, of BIGINT)")
    rows = [(f"name {of}", of) for of in range(300)]
    interrupted = 0
    for moment in range(300):
        try:
            signal.setitimer(signal.ITIMER_REAL, 1e-5 * (1 + moment))
            db.insert("rows", rows)
            signal.setitimer(signal.ITIMER_REAL, 0)
        except KeyboardInterrupt:
            interrupted += 1
    assert interrupted > 0


@pytest.mark.parametrize("text", ["KeyboardInterrupt: ", "x\nKeyboardInterrupt", "Query interrupted"])
def test_a_value_spelling_an_interrupt_is_not_an_interrupt(text: str) -> None:
    db = Database(threads=1)
    db.run("CREATE TABLE rows (of BIGINT)")
    with pytest.raises(Exception, match="Could not convert"):
        db.insert("rows", [(text,)])


def test_a_wrong_query_is_reported() -> None:
    with pytest.raises(Exception, match="nowhere"):
        Database(threads=1).run("FROM nowhere")


@pytest.mark.parametrize("memory", ["x", "0", "2GB'; select 1", "1e99TB"])
def test_an_invalid_memory_size_is_refused(memory: str) -> None:
    with pytest.raises(UsageError, match="takes a size, such as 2GB"):
        Database(memory=memory)


def test_a_memory_limit_too_small_is_one_line() -> None:
    with pytest.raises(AudiopixelError) as raised:
        Database(threads=1, memory="1KB").run("CREATE TABLE rows AS FROM range(100000)")
    assert "too little memory" in str(raised.value)
    assert len(str(raised.value).splitlines()) == 1
