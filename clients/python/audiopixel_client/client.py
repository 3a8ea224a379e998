"""The client. Its thread reads rows as the flow writes them; a program that reads a row never waits."""

from __future__ import annotations

import asyncio
import random
import threading
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Optional

from redis import ResponseError
from redis.backoff import NoBackoff
from redis.retry import Retry

from audiopixel_client.address import connect, has_moved, in_words
from audiopixel_client.mirror import META, Mirror, OlderStateError, Reading
from audiopixel_client.rows import STALE_S, Row, clock_s

CHUNK = 1_000
"""The greatest number of rows that one pipeline reads."""
QUIET_S = 1.0
"""Time without a message, in s, after which the client reads `meta`, in case the subscription is dead."""
LONGEST_PAUSE_S = 0.5
"""The longest pause between two attempts to connect, in s."""


def _packed(*words: str) -> bytes:
    """Words as bulk strings of Redis's protocol."""
    return b"".join(b"$%d\r\n%s\r\n" % (len(word), word) for word in map(str.encode, words))


def _command(*words: str) -> bytes:
    """A command as an array of Redis's protocol."""
    return b"*%d\r\n%s" % (len(words), _packed(*words))


class Client:
    """Rows of placements, from memory. Use the client with `with` or `async with`.

    The client reads a snapshot of all rows, then the rows that each message of `updates` names. It reads
    another snapshot after a lost message, a reconnection, or a new execution of the flow. A forked process
    needs a client of its own.

    Args:
        url: address of Redis or Valkey, `redis://user:password@host:6379/0`, or of its Sentinels,
            `redis+sentinel://host:26379,host2:26379/service/0`.
        fields: fields of a row, as docs/bidders.md names them, besides those that the rules need.
        placements: the placements to read; None for all.
        campaign: the only campaign whose placements are read; None for any.
        namespace: the flow's `AUDIOPIXEL_NAMESPACE`.
        least, most: bounds of `row.factor`.
        stale_s: the age of the flow's last write, in s, beyond which no row is usable; at most 30.
        timeout_s: the time that Redis may take to answer, in s.

    Raises:
        ValueError: `url` is malformed, or a Redis Cluster's.

    Attributes:
        reviewed: by placement, impressions in blocked content that a person has reviewed; set by the program.
        error: the last error; None after a snapshot.
    """

    def __init__(
        self,
        url: str,
        fields: Sequence[str] = (),
        placements: Iterable[str] | None = None,
        campaign: str | None = None,
        *,
        namespace: str = "audiopixel:v1",
        least: float = 0.5,
        most: float = 2.0,
        stale_s: float = STALE_S,
        timeout_s: float = 1.0,
    ) -> None:
        self.reviewed: dict[str, int] = {}
        self.error: Exception | None = None
        self._wanted = None if placements is None else dict.fromkeys(placements)
        self._mirror = Mirror(fields, campaign, stale_s, least, most, self.reviewed)
        self._namespace, self._timeout_s = namespace, timeout_s
        self._redis = connect(
            url,
            decode_responses=True,
            encoding_errors="replace",
            socket_timeout=timeout_s,
            socket_connect_timeout=timeout_s,
            retry=Retry(NoBackoff(), 0),  # redis's own retries hide a lost connection, and wait for seconds
        )
        self._over, self._ready = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._run, name="audiopixel-client", daemon=True)

    def __getitem__(self, placement: str) -> Row:
        """The row of a placement, with the reason `gone` if Redis has none.

        Raises:
            KeyError: the placement is not one of `placements`.
        """
        if self._wanted is not None and placement not in self._wanted:
            raise KeyError(placement)
        return self._mirror.row(placement)

    def __iter__(self) -> Iterator[str]:
        """The placements that have a row now."""
        return iter(self._mirror.names())

    def wait(self, timeout_s: float = 5.0) -> bool:
        """Wait for the first snapshot, at most `timeout_s`. Returns False if no row is usable yet."""
        return self._ready.wait(timeout_s)

    def __enter__(self) -> Client:
        self._thread.start()
        self.wait()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    async def __aenter__(self) -> Client:
        return await asyncio.get_running_loop().run_in_executor(None, self.__enter__)

    async def __aexit__(self, *_: object) -> None:
        await asyncio.get_running_loop().run_in_executor(None, self.__exit__)

    def _run(self) -> None:
        pause_s = 0.05
        while not self._over.is_set():
            # The pool would count each of these connections as open for ever, and refuse the hundredth.
            pool, pubsub = self._redis.connection_pool, self._redis.pubsub()
            self._connection = pool.connection_class(**pool.connection_kwargs)
            try:
                self._connection.connect()
                pubsub.subscribe(f"{self._namespace}:updates")
                if pubsub.get_message(timeout=self._timeout_s):
                    self._snapshot()
                    pause_s = 0.05
                    self._follow(pubsub)
            except Exception as error:  # of any kind: rows become stale, and the next turn connects again
                self.error = in_words(error)
            finally:
                pubsub.close()
                self._connection.disconnect()
                self._redis.connection_pool.disconnect()
            self._over.wait(pause_s * random.uniform(0.5, 1.0))
            pause_s = min(LONGEST_PAUSE_S, 2 * pause_s)
        self._redis.close()

    def _follow(self, pubsub: Any) -> None:
        """Read the rows that messages name, until the end, a promotion, or a lost message."""
        late = False
        while not self._over.is_set():
            message = pubsub.get_message(True, timeout=QUIET_S / 2 if late else QUIET_S)
            if message is not None:
                late = False
                self._take(pubsub, message)
                continue
            if has_moved(self._redis, self._connection):
                return
            reading, _ = self._read([])
            if reading.flush == self._mirror.flush:
                self._mirror.show({}, reading, reading.flush)
            elif late:
                return
            else:  # the message of this flush may be on the way
                late = True

    def _take(self, pubsub: Any, message: Any) -> None:
        """Read the rows that a message and those after it in the queue name."""
        flush, names = self._mirror.flush, dict[str, None]()
        while message is not None:
            follows = self._mirror.follows(message["data"], flush)
            if follows is None:
                self._snapshot()
                return
            flush = follows[0]
            names.update(dict.fromkeys(follows[1]))
            has_bytes = pubsub.connection.can_read(0)  # after a part of a message the rest is on the way
            message = pubsub.get_message(True, timeout=self._timeout_s) if has_bytes else None
        reading, rows = self._read([name for name in names if self._wanted is None or name in self._wanted])
        if reading.flush < flush:
            raise OlderStateError(f"meta is of flush {reading.flush}, before the message's {flush}")
        self._mirror.show(rows, reading, flush)

    def _snapshot(self) -> None:
        """Read all rows."""
        first, _ = self._read([])
        names, index = self._wanted, f"{self._namespace}:index:placement"
        if names is None:
            names = dict.fromkeys(name for name, _ in self._redis.zscan_iter(index, count=CHUNK))
        all_names, rows = list(names), dict[str, list[Optional[str]]]()
        for begin in range(0, len(all_names), CHUNK):
            reading, chunk_rows = self._read(all_names[begin : begin + CHUNK])
            if reading.version < first.version:
                raise OlderStateError("Redis has lost its data")
            rows.update(chunk_rows)
        self._mirror.show(rows, first, first.flush, whole=True)
        self.error = None
        self._ready.set()

    def _read(self, names: Sequence[str]) -> tuple[Reading, dict[str, list[str | None]]]:
        """Read Redis's clock, then `meta`, then rows, which are of the flush of `meta` or of a later one.

        redis's own pipeline takes ten times the processor time for many commands of the same form.
        """
        asked_s, read = clock_s(), self._connection.read_response
        fields = _packed(*self._mirror.fields)
        commands = [_command("TIME"), _command("HMGET", f"{self._namespace}:meta", *META)]
        for name in names:
            key = _packed("HMGET", f"{self._namespace}:placement:{{{name}}}")
            commands.append(b"*%d\r\n%s%s" % (2 + len(self._mirror.fields), key, fields))
        self._connection.send_packed_command([b"".join(commands)])
        (seconds, micros), meta = read(), read()
        rows = [self._read_row() for _ in names]
        return self._mirror.read(meta, int(seconds) + int(micros) / 1e6, asked_s), dict(zip(names, rows))

    def _read_row(self) -> list[str | None]:
        """The texts of a row; none at all for a key that holds no hash."""
        try:
            texts: list[str | None] = self._connection.read_response()
        except ResponseError as error:
            if not str(error).startswith("WRONGTYPE"):
                raise
            return []
        return texts
