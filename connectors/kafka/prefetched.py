"""Prefetched messages of a partition, as one block of bytes or as the package's objects.

The package's `consume` creates five Python objects a message, which costs more than decoding it. `Block`
takes the messages through librdkafka's C API in one compiled loop, and copies the payloads one after another
in a second loop. The package still does everything else: options, TLS, SASL, leaders, callbacks, commits.

Messages arrive in the partition's own queue. Callbacks into Python arrive in the consumer's main queue, which
the package serves (`Consumer.poll`). librdkafka's handle is the first word of the package's consumer object.
It is used only after a check: librdkafka must return the name of a consumer that was created for this check.
If the check fails, or the wheel's library cannot be found, `Objects` reads with the package.
"""

from __future__ import annotations

import ctypes
import sys
from array import array
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any, Final, NamedTuple, Protocol, TypeVar, cast

import confluent_kafka
import numba
import numpy as np
import numpy.typing as npt
import structlog
from confluent_kafka import Consumer, KafkaError, Message
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from connectors.kafka.client import up_to_damage
from connectors.kafka.mark import Mark
from connectors.stream import LATEST_MS, SPARE_BYTES, Lines

I64 = npt.NDArray[np.int64]
F = TypeVar("F", bound=Callable[..., Any])

_FETCH: Final = 2
"""`RD_KAFKA_EVENT_FETCH`: the event is a message; any other event in this queue is an error."""
_PAYLOAD, _LENGTH, _OFFSET = 24, 32, 56
"""Bytes into `rd_kafka_message_t`."""
_OFFSET_IN_PLACE: Final = 16
"""Bytes into `rd_kafka_topic_partition_t`."""
_HANDLE_AT: Final = object.__basicsize__
"""The place of librdkafka's handle in the package's objects, in bytes."""


_CHUNK: Final = 500
"""The number of messages of one call. More objects would not fit into the processor's cache: a message costs
0.34 us, with 10,000 a call 0.52 us.
"""
_error = Message.error
_value = Message.value
_offset = cast(Callable[[Message], int], Message.offset)
_timestamp = Message.timestamp


class Taken(NamedTuple):
    """Messages and errors taken from the queue.

    Attributes:
        values: the payloads; a tombstone's is empty.
        offsets, times_ms: one for each message; the time is 0 without a possible timestamp.
        mark: after the last message; None without a message, or if the brokers report no epoch.
        errors: the errors between the messages, each with its offset.
        ends_in_data: whether the last entry was a message.
    """

    values: Sequence[bytes]
    offsets: Sequence[int]
    times_ms: Sequence[int]
    mark: Mark | None
    errors: list[tuple[KafkaError, int]]
    ends_in_data: bool


class Prefetched(Protocol):
    """The messages of one partition that librdkafka has prefetched."""

    def begin(self) -> None:
        """Start to take messages; call it only after the partition has been assigned. Librdkafka checks the
        epoch of a position only while it does not know the partition yet. Otherwise a lost log would be read
        on as if it were the former one.
        """
        ...

    def take(self, limit: int) -> Taken:
        """At most `limit` messages, up to the first error; empty if the queue is empty."""
        ...

    def close(self) -> None:
        """Release librdkafka's objects. Call it before the consumer is closed."""
        ...


def prefetched(consumer: Consumer, topic: str, partition: int) -> Prefetched:
    """The prefetched messages of the only partition that a consumer is about to be assigned."""
    library = _library()
    if library is None:
        return Objects(consumer)
    return Block(library, consumer, topic, partition)


class Objects:
    """Messages through the package, as its objects."""

    def __init__(self, consumer: Consumer) -> None:
        self._consume = consumer.consume

    def begin(self) -> None:
        """Do nothing: messages arrive in the consumer's main queue."""

    def take(self, limit: int) -> Taken:
        values: list[bytes] = []
        offsets: list[int] = []
        times_ms: list[int] = []
        errors: list[tuple[KafkaError, int]] = []
        mark, ends_in_data = None, False
        while len(values) < limit and not errors:
            data = messages = self._consume(min(_CHUNK, limit - len(values)), 0)
            if not messages:
                break
            ends_in_data = not messages[-1].error()
            if any(map(_error, messages)):
                messages = up_to_damage(messages)
                errors = [(cast(KafkaError, _error(one)), _offset(one)) for one in messages if one.error()]
                data = [message for message in messages if not message.error()]
            if data:
                mark = Mark.behind(data[-1].leader_epoch(), data[-1].offset())
            values += [value or b"" for value in map(_value, data)]
            offsets += map(_offset, data)
            # As `time_ms`, without a call for each message.
            times_ms += [one if 0 < one < LATEST_MS else 0 for _, one in map(_timestamp, data)]
        return Taken(values, offsets, times_ms, mark, errors, ends_in_data)

    def close(self) -> None:
        """Do nothing: the package frees its objects."""


class Block:
    """Messages through librdkafka's queue of the partition, as events, which need no callbacks."""

    def __init__(self, library: Any, consumer: Consumer, topic: str, partition: int) -> None:
        self._library, self._consumer, self._place = library, consumer, (topic.encode(), partition)
        self._early = Objects(consumer)
        self._queue: int | None = None
        self._calls = np.array([_address(getattr(library, name)) for name in _CALLED], np.int64)
        self._events, self._messages = np.empty((2, 0), np.int64)

    def begin(self) -> None:
        if self._queue is None:
            self._queue = self._library.rd_kafka_queue_get_partition(_handle_of(self._consumer), *self._place)
            # From now on the partition's messages do not go to the consumer's main queue.
            self._library.rd_kafka_queue_forward(self._queue, None)

    def take(self, limit: int) -> Taken:
        early = self._early.take(limit)  # runs callbacks, and returns messages from before `begin`
        if early.values or early.errors or self._queue is None:
            return early
        errors = list[tuple[KafkaError, int]]()
        if len(self._events) < limit:
            self._events, self._messages = np.empty((2, limit), np.int64)
        count, size, error = _pop(self._queue, limit, self._calls, self._events, self._messages)
        if error:
            errors.append(self._error(error))
        if not count:
            return Taken([], [], [], None, errors, False)
        events, messages = self._events[:count], self._messages[:count]
        block, ends = bytes(size + SPARE_BYTES), np.empty(count, np.int64)
        offsets, times_ms = array("q", bytes(8 * count)), array("q", bytes(8 * count))
        place = np.frombuffer(block, np.uint8).ctypes.data
        _copy_all(messages, place, ends, _numbers(offsets), _numbers(times_ms), self._calls)
        epoch = self._library.rd_kafka_message_leader_epoch(int(messages[-1]))
        _free_all(events, self._calls)
        return Taken(
            Lines(block, ends), offsets, times_ms, Mark.behind(epoch, offsets[-1]), errors, not error
        )

    def _error(self, event: int) -> tuple[KafkaError, int]:
        library = self._library
        code, reason = library.rd_kafka_event_error(event), library.rd_kafka_event_error_string(event)
        offset = -1
        if place := library.rd_kafka_event_topic_partition(event):
            offset = ctypes.c_int64.from_address(place + _OFFSET_IN_PLACE).value
            library.rd_kafka_topic_partition_destroy(place)
        error = KafkaError(code, (reason or b"").decode(errors="replace"))
        library.rd_kafka_event_destroy(event)
        return error, offset

    def close(self) -> None:
        if self._queue:
            self._library.rd_kafka_queue_destroy(self._queue)
            self._queue = None


def _handle_of(consumer: Consumer) -> int:
    return ctypes.c_void_p.from_address(id(consumer) + _HANDLE_AT).value or 0


def _address(function: Any) -> int:
    return ctypes.cast(function, ctypes.c_void_p).value or 0


def _numbers(numbers: array[int]) -> I64:
    return np.frombuffer(numbers, np.int64)


@cache
def _library() -> Any:
    """librdkafka as loaded by the package; None, and a line in the log, if it cannot be called."""
    package = Path(confluent_kafka.__file__).parent
    if sys.implementation.name == "cpython":
        for path in [
            *package.parent.glob("confluent_kafka.libs/librdkafka*"),
            *package.glob(".dylibs/librdkafka*"),
        ]:
            library = ctypes.CDLL(str(path))
            _declare(library)
            if _is_the_packages(library):
                return library
    structlog.get_logger("kafka").warning("messages are read as objects, for a third more processor time")
    return None


_CALLED: Final = (
    "rd_kafka_queue_poll",
    "rd_kafka_event_type",
    "rd_kafka_event_message_next",
    "rd_kafka_message_timestamp",
    "rd_kafka_event_destroy",
)
"""The functions that the compiled loops call by address."""
_POLL, _TYPE, _NEXT, _TIME, _DESTROY = range(len(_CALLED))


def _declare(library: Any) -> None:
    pointer, text, number = ctypes.c_void_p, ctypes.c_char_p, ctypes.c_int32
    for name, result, arguments in (
        ("rd_kafka_name", text, [pointer]),
        ("rd_kafka_version", number, []),
        ("rd_kafka_queue_get_partition", pointer, [pointer, text, number]),
        ("rd_kafka_queue_forward", None, [pointer, pointer]),
        ("rd_kafka_queue_destroy", None, [pointer]),
        ("rd_kafka_message_leader_epoch", number, [pointer]),
        ("rd_kafka_event_error", number, [pointer]),
        ("rd_kafka_event_error_string", text, [pointer]),
        ("rd_kafka_event_topic_partition", pointer, [pointer]),
        ("rd_kafka_topic_partition_destroy", None, [pointer]),
        ("rd_kafka_event_destroy", None, [pointer]),
    ):
        function = getattr(library, name)
        function.restype, function.argtypes = result, arguments


def _is_the_packages(library: Any) -> bool:
    """True if the package calls this library, and its consumers have the handle at the expected place."""
    if library.rd_kafka_version() != confluent_kafka.libversion()[1]:
        return False
    name = "audiopixel-handle"
    consumer = Consumer({"bootstrap.servers": "", "group.id": name, "client.id": name})
    try:
        handle = _handle_of(consumer)
        return bool(handle) and library.rd_kafka_name(handle).startswith(name.encode())
    finally:
        consumer.close()


def _compiled(function: F) -> F:
    compiled: F = numba.njit(cache=True, nogil=True)(function)
    return compiled


def _word_at(typing_context: Any, address: Any) -> Any:
    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.load(builder.inttoptr(arguments[0], ir.IntType(64).as_pointer()))

    return types.int64(types.int64), generate


def _copied(typing_context: Any, to: Any, source: Any, size: Any) -> Any:
    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        byte = ir.IntType(8).as_pointer()
        copy = builder.module.declare_intrinsic("llvm.memcpy", [byte, byte, ir.IntType(64)])
        places = [builder.inttoptr(address, byte) for address in arguments[:2]]
        builder.call(copy, [*places, arguments[2], ir.Constant(ir.IntType(1), 0)])
        builder.store(
            ir.Constant(ir.IntType(8), 10), builder.inttoptr(builder.add(arguments[0], arguments[2]), byte)
        )
        return context.get_dummy_value()

    return types.void(types.int64, types.int64, types.int64), generate


def _called(typing_context: Any, function: Any, first: Any, second: Any) -> Any:
    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        kind = ir.FunctionType(ir.IntType(64), [ir.IntType(64)] * 2)
        return builder.call(builder.inttoptr(arguments[0], kind.as_pointer()), arguments[1:])

    return types.int64(types.int64, types.int64, types.int64), generate


_load: Any = intrinsic(_word_at)
_copy: Any = intrinsic(_copied)
_call: Any = intrinsic(_called)


@_compiled
def _pop(queue: int, limit: int, calls: I64, events: I64, messages: I64) -> tuple[int, int, int]:
    """Take events up to the first that is no message.

    Returns:
        The number of messages, the bytes of their payloads, each with one more, and the other event, or 0.
    """
    size = 0
    for count in range(limit):
        event = _call(calls[_POLL], queue, 0)
        if event == 0:
            return count, size, 0
        if _call(calls[_TYPE], event, 0) & 0xFFFFFFFF != _FETCH:
            return count, size, event
        message = _call(calls[_NEXT], event, 0)
        events[count], messages[count] = event, message
        size += _load(message + _LENGTH) + 1
    return limit, size, 0


@_compiled
def _copy_all(messages: I64, block: int, ends: I64, offsets: I64, times_ms: I64, calls: I64) -> None:
    """Copy the payloads to the address `block`, each followed by LF."""
    end = 0
    for place, message in enumerate(messages):
        length = _load(message + _LENGTH)
        _copy(block + end, _load(message + _PAYLOAD), length)
        end += length
        ends[place] = end
        end += 1
        offsets[place] = _load(message + _OFFSET)
        time_ms = _call(calls[_TIME], message, 0)
        times_ms[place] = time_ms if 0 < time_ms < LATEST_MS else 0


@_compiled
def _free_all(events: I64, calls: I64) -> None:
    for event in events:
        _call(calls[_DESTROY], event, 0)


def compile_loops() -> None:
    """Compile the loops now, instead of at a flow's first message."""
    calls, none = np.zeros(len(_CALLED), np.int64), np.empty(0, np.int64)
    _pop(0, 0, calls, none, none)
    _copy_all(none, 0, none, none, none, calls)
    _free_all(none, calls)
