"""Messages between the members of a cluster, pickled as the engine does."""

from __future__ import annotations

import copyreg
import pickle
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from benchmarks.plain_log import write_log
from flows.engine import pickled
from flows.engine.saved_step import Saved
from flows.model.messages import Durable, Lines, Message, RowBatch, Settled
from flows.replay import replay
from flows.settings import Settings

KINDS = set(get_args(Message))


@pytest.fixture(autouse=True)
def packing() -> Iterator[None]:
    before = dict(copyreg.dispatch_table)
    pickled.pickle_once()
    yield
    copyreg.dispatch_table.clear()
    copyreg.dispatch_table.update(before)


def sent(messages: list[Any]) -> list[Any]:
    """The messages after the engine's two passes over a batch."""
    sizes = [len(pickle.dumps(message)) for message in messages]
    written = [pickle.dumps(message) for message in messages]
    assert sizes == [len(one) for one in written]
    assert not pickled._PACKED
    return [pickle.loads(one) for one in written]


def same(left: Any, right: Any) -> bool:
    if isinstance(left, np.ndarray):
        equal = left.dtype == right.dtype and left.shape == right.shape and bool((left == right).all())
        return equal and right.flags.writeable and right.flags.aligned
    if isinstance(left, (list, tuple)):
        return type(left) is type(right) and len(left) == len(right) and all(map(same, left, right))
    return bool(type(left) is type(right) and left == right)


def test_every_kind_of_message_arrives_as_it_was_sent(
    tmp_path: Path, settings_of: Callable[..., Settings], monkeypatch: pytest.MonkeyPatch
) -> None:
    log, messages = tmp_path / "log.ndjson", list[Any]()
    write_log(log, 4_000, 1, rate=100)
    on_batch = Saved.on_batch

    def seen(step: Saved, values: list[Any]) -> Any:
        out, gone = on_batch(step, values)
        out = [*out]
        messages.extend([*values, *out])
        return out, gone

    monkeypatch.setattr(Saved, "on_batch", seen)
    replay([str(log)], settings_of(), b"key", recovery_dir=tmp_path / "recovery")
    cut = next(message.cut for message in messages if isinstance(message, RowBatch))
    messages.append(Durable(cut, "rows", "0", "save", 1, 2, "sum"))  # a short replay may end before one comes
    assert {type(message) for message in messages} == KINDS
    assert all(map(same, messages, sent(messages)))


@given(
    arrays(
        st.sampled_from(["u8", "i8", "u4", "u2", "u1", "?", "f8", ">u4", "S3"]),
        array_shapes(min_side=0),
    ),
    st.booleans(),
)
def test_an_array_of_any_form_arrives_and_can_be_written(array: Any, across: bool) -> None:
    array = np.nan_to_num(array) if array.dtype.kind == "f" else array
    array = array.T if across else array
    array.flags.writeable = False
    (message,) = sent([Settled(array, None, [])])  # type: ignore[arg-type]  # any array, no cut
    assert np.array_equal(array, message.sender)
    assert same(array, message.sender) or array.dtype.str in (">u4", "|S3"), "of these NumPy's own form"


def test_a_resent_message_is_packed_again() -> None:
    message = Lines([(b"a", b"b")], 1)
    for _ in range(3):
        assert sent([message]) == [message]


def test_an_engine_pickling_once_does_not_fill_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pickled, "MAX_PACKED", 4)
    messages = [Lines([(b"a", b"b")], number) for number in range(9)]
    assert [pickle.loads(pickle.dumps(message)) for message in messages] == messages
    assert len(pickled._PACKED) == 1
    pickled._PACKED.clear()
