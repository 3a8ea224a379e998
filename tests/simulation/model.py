"""What is right for a prefix of every partition, by chapters 1 and 2 of the specification, counted anew each
time. It shares no line with the flow, and reads the messages by itself.
"""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final, NamedTuple

SCOPES: Final = {
    "placement": "placement_id",
    "campaign": "campaign_id",
    "platform": "platform",
    "station": "station",
}
MILESTONES: Final = {
    "firstQuartile": "first_quartiles",
    "midpoint": "midpoints",
    "thirdQuartile": "third_quartiles",
    "complete": "completes",
}
PLAIN: Final = {"impression": "impressions", "click": "clicks"}
EVENTS: Final = ("start", "skip", "conversion", *MILESTONES, *PLAIN)
COUNTED: Final = (
    *("impressions", "starts", *MILESTONES.values(), "clicks", "pixels", "consented"),
    *("repeated", "too_late", "invalid_traffic", "reach"),
)
"""What depends on nothing but the pixels that were read."""
_BOT: Final = ("bot/", "crawler", "spider")

PERHAPS: Final = "perhaps"
"""No reason: one of which nobody can say whether it is late."""

Row = tuple[str, str]


class Read(NamedTuple):
    """A message as it counts: its reason of rejection, or its pixel, what it is known again by, the rows in
    which it counts, and whether a bot sent it.
    """

    reason: str
    pixel: dict[str, Any]
    identity: tuple[Any, ...] = ()
    rows: tuple[Row, ...] = ()
    bot: bool = False


class Model:
    """The log of a history.

    Args:
        partitions: their messages with the times at which they came, epoch ms.
        perhaps: the placement of pixels of which nobody can say whether they are late.
        forgotten: a listener who is on the deny-list.
    """

    def __init__(
        self,
        partitions: Mapping[str, Sequence[tuple[int, bytes]]],
        lateness_ms: int,
        bound_ms: int,
        perhaps: str = "",
        forgotten: str = "",
    ) -> None:
        self.perhaps, self._forgotten = perhaps, forgotten
        self._lateness_ms, self._bound_ms = lateness_ms, bound_ms
        self.read = {name: self._read(some) for name, some in partitions.items()}

    def _read(self, some: Sequence[tuple[int, bytes]]) -> list[Read]:
        found, greatest_ms = list[Read](), 0
        for at_ms, raw in some:
            one = _read_one(raw)
            if not one.reason:
                own_ms = max(min(one.pixel["ts"], at_ms + 60_000), at_ms - 86_400_000)
                greatest_ms = max(greatest_ms, own_ms)
                end_ms = own_ms // 60_000 * 60_000 + 60_000
                if one.pixel.get("placement_id") == self.perhaps:
                    one = one._replace(reason=PERHAPS)
                elif end_ms + self._lateness_ms <= greatest_ms - self._bound_ms:
                    one = one._replace(reason="too_late")
            found.append(one)
        return found

    def rows(self, positions: Mapping[str, int]) -> dict[Row, Counter[str]]:
        """The counts of every row when so much of each partition was read; those that are 0 are left out."""
        rows: dict[Row, Counter[str]] = defaultdict(Counter)
        reached: dict[Row, set[str]] = defaultdict(set)
        known, plays = set[tuple[Any, ...]](), dict[tuple[Any, ...], dict[str, Read]]()
        for one in [one for name, position in positions.items() for one in self.read[name][:position]]:
            if not one.pixel or one.reason == PERHAPS:
                continue
            names = [*self._names(one, known)]
            known.add(one.identity)
            for row in one.rows:
                for name in names:
                    rows[row][name] += 1
            if "pixels" in names:
                event = one.pixel["event"]
                known_one = one.pixel.get("listener_id") != self._forgotten
                if known_one and "consented" in names and event in ("impression", "start"):
                    for row in one.rows:
                        reached[row].add(one.pixel["listener_id"])
                if one.pixel.get("play_id"):
                    plays.setdefault(one.identity[:-1], {})[event] = one
        for play in plays.values():
            if "start" in play:
                furthest = max((place for place, event in enumerate(MILESTONES) if event in play), default=-1)
                for row in play["start"].rows:
                    rows[row].update(("starts", *list(MILESTONES.values())[: furthest + 1]))
        for row, who in reached.items():
            rows[row]["reach"] = len(who)
        return rows

    def _names(self, one: Read, known: set[tuple[Any, ...]]) -> Iterator[str]:
        """What a pixel counts as in each of its rows, whatever comes behind it."""
        if one.reason:
            yield "too_late"
        elif one.identity in known:
            yield "repeated"
        elif one.bot:
            yield "invalid_traffic"
        else:
            yield "pixels"
            if one.pixel.get("consent") is True:
                yield "consented"
            if one.pixel["event"] in PLAIN:
                yield PLAIN[one.pixel["event"]]

    def account(self, partition: str, position: int) -> Counter[str]:
        """How many messages of a partition were received, and rejected, by reason."""
        some = self.read[partition][:position]
        found = Counter({"received": len(some)})
        found.update(f"rejected.{one.reason}" for one in some if one.reason)
        if found.pop(f"rejected.{PERHAPS}", 0):
            del found["rejected.too_late"]
        return found


def rows_of(pixel: Mapping[str, Any]) -> list[Row]:
    """The rows in which a pixel counts by its own fields."""
    return [(scope, pixel[name]) for scope, name in SCOPES.items() if pixel.get(name)]


def _read_one(raw: bytes) -> Read:
    try:
        pixel = json.loads(raw)
    except ValueError:
        return Read("malformed", {})
    if not isinstance(pixel, dict):
        return Read("malformed", {})
    if "event_id" not in pixel:
        return Read("invalid", {})
    if pixel["event"] not in EVENTS:
        return Read("unknown_event", {})
    event, bot = pixel["event"], any(word in (pixel.get("user_agent") or "").lower() for word in _BOT)
    if event == "conversion":
        bought = pixel["conversion"]
        identity: tuple[Any, ...] = (bot, pixel.get("campaign_id"), bought["type"], bought["order_id"], event)
    elif pixel.get("play_id"):
        identity = (bot, pixel["placement_id"], pixel["play_id"], event)
    else:
        identity = (bot, pixel["placement_id"], pixel["event_id"])
    return Read("", pixel, identity, tuple(rows_of(pixel)), bot)
