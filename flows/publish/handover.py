"""The handover of flushes to the publisher's thread. The flow waits for Redis only after Redis has been
slower than the flow for `MAX_BEHIND` flushes.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Final

import structlog
from msgspec.structs import astuple

from flows.errors import StateError
from flows.model.decisions import DecisionRecord
from flows.model.messages import Flush
from flows.model.ticks import Cut
from flows.publish.publisher import Publisher

FORMAT: Final = 4
MAX_BEHIND: Final = 2
"""The number of unfinished flushes at which the flow waits before it hands over another one."""
MAX_SAVED: Final = 20_000
"""The greatest number of decisions in a snapshot, about 1 KB each. A save waits until Redis has all others,
unless Redis does not answer. If the flow dies in such an outage, the others are in the topic alone.
"""
POLL_S: Final = 0.01


class Handover:
    """The flow's side of an open publisher, whose own state belongs to its thread.

    Rows need no snapshot, since a start publishes all of them. Decisions are published once, so a snapshot
    holds those that Redis may lack. It also holds the states of delivery, which depend on earlier states.

    Args:
        in_line: use no thread; `flush` returns when the publisher has written it.
        state: of a snapshot, or None.

    Raises:
        StateError: the state is of another format.
    """

    def __init__(self, publisher: Publisher, in_line: bool = False, state: Any = None) -> None:
        self._publisher = publisher
        self._thread = None if in_line else ThreadPoolExecutor(1, "redis")
        self._behind: deque[Future[None]] = deque()
        self._unsaved: deque[tuple[int, Sequence[DecisionRecord]]] = deque()
        self._failed: BaseException | None = None
        self._closed = False
        self._left_out = self._owed = -1
        if state is not None:
            self._restore(state)

    def flush(self, cut: Cut, flushes: Sequence[Flush], last: bool = False) -> None:
        """Hand over the flushes of all shards for one cut.

        Args:
            last: return only when the publisher has written it.

        Raises:
            AudiopixelError: the publisher failed at this flush or an earlier one.
        """
        self._unsaved += [(cut.number, flush.decisions) for flush in flushes if flush.decisions]
        self._drop()
        if self._thread is None:
            self._publisher.flush(cut, flushes)
            return
        self._wait(MAX_BEHIND - 1)
        self._behind.append(self._thread.submit(self._work, cut, flushes))
        if last:
            self._wait(0)

    def snapshot(self) -> tuple[Any, ...]:
        """The decisions that Redis may lack, and the states of delivery, as plain values, with the format.

        Raises:
            AudiopixelError: the publisher failed.
        """
        self._wait(MAX_BEHIND)
        self._drop()
        self._owed = self._left_out
        pacer = self._publisher.pacer  # the publisher's thread replaces `saved` as a whole
        states = () if pacer is None else pacer.saved
        return FORMAT, [(number, [*map(astuple, decisions)]) for number, decisions in self._unsaved], states

    def settle(self) -> None:
        """Wait until Redis has the decisions that the last snapshot left out, or does not answer. Called in a
        thread.

        Raises:
            AudiopixelError: the publisher failed; do not resume from this save.
        """
        owed, publisher = self._owed, self._publisher
        while publisher.writer.decided < owed and publisher.takes and not self._closed:
            if self._failed is not None:
                raise self._failed
            time.sleep(POLL_S)

    def close(self) -> None:
        """End the thread after the queued flushes that still must be written, and close Redis.

        Raises nothing: the engine may be ending after an error already, and a second error would abort it.
        """
        try:
            if self._thread is not None:
                self._behind.append(self._thread.submit(self._finish))
                self._wait(0)
            else:
                self._finish()
        except Exception as error:
            structlog.get_logger("publish").error(
                "the flow ended before all rows were written", error=str(error)
            )
        finally:
            self._closed = True
            if self._thread is not None:
                self._thread.shutdown()
            self._publisher.close()

    def _work(self, cut: Cut, flushes: Sequence[Flush]) -> None:
        if self._failed is not None:  # after an error no flush is known to be complete
            return
        try:
            self._publisher.flush(cut, flushes)
        except BaseException as error:
            self._failed = error
            raise

    def _finish(self) -> None:
        if self._failed is None:
            self._publisher.finish()

    def _wait(self, most: int) -> None:
        """Wait until at most `most` flushes are unfinished; raise the error of a failed one."""
        while self._behind and (len(self._behind) > most or self._behind[0].done()):
            self._behind.popleft().result()

    def _drop(self) -> None:
        """Drop the decisions that Redis has, and the oldest ones beyond `MAX_SAVED`."""
        decided, waiting = self._publisher.writer.decided, self._unsaved
        while waiting and waiting[0][0] <= decided:
            waiting.popleft()
        over = sum(len(decisions) for _, decisions in waiting) - MAX_SAVED
        while over > 0:
            number, decisions = waiting.popleft()
            self._left_out = max(self._left_out, number)
            if len(decisions) > over:
                waiting.appendleft((number, decisions[over:]))
            over -= len(decisions)

    def _restore(self, state: Any) -> None:
        if not isinstance(state, tuple) or state[0] != FORMAT:
            form = state[0] if isinstance(state, tuple) else state
            raise StateError(
                f"the recovery store holds a writer's state of format {form}, this version reads {FORMAT}: "
                "run the version that wrote it, or recompute from the log with --recompute and an empty "
                "recovery directory"
            )
        for number, decisions in state[1]:
            records = [DecisionRecord(*plain) for plain in decisions]
            self._unsaved.append((number, records))
            self._publisher.decide(records)
        if self._publisher.pacer is not None:
            self._publisher.pacer.restore(state[2])
