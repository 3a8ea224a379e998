"""The right numbers for a prefix of every partition, by chapters 1 and 2 of the specification, recounted each
time. This module shares no line with the flow and reads the messages by itself (`simulation.reading`).
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, Final, NamedTuple

from simulation.reading import SCOPES, read, said

MILESTONES: Final = {
    "firstQuartile": "first_quartiles",
    "midpoint": "midpoints",
    "thirdQuartile": "third_quartiles",
    "complete": "completes",
}
PLAIN: Final = {"impression": "impressions", "click": "clicks", "error": "errors"}
UNLINKED: Final = {"start": "unlinked_starts"} | {of: f"unlinked_{name}" for of, name in MILESTONES.items()}
BASES: Final = ("audible_2s", "streamed_full", "vast_impression", "ad_delivered", "download")
"""The stronger one first."""
COUNTED: Final = (
    *("impressions", "starts", *MILESTONES.values(), "clicks", "errors", "pixels", "consented"),
    *("repeated", "too_late", "invalid_traffic", *UNLINKED.values(), "deliveries", "confirmed_plays"),
    *(f"impressions_{basis}" for basis in BASES),
    "reach",
)
"""What depends on nothing but the pixels that were read."""
REPEATED: Final = ("repeated",)
ALWAYS: Final = ("pixels", "consented", "repeated", "too_late", "invalid_traffic")
"""Of these a planned placement counts all, also before its flight."""
EXACTLY: Final = 1_000
"""Up to so many listeners reach is exact."""
LONGEST_STEP_MS: Final = 10_000
"""A step of the log's time."""
QUIET_MS: Final = 60_000
CLOCK_OFF_MS: Final = 60_000
CLOCK_HOLDS_MS: Final = 300_000
"""The log's time for which a collector holds it whose clock is off by over `CLOCK_OFF_MS`."""
_BOT: Final = re.compile(r"bot\b|bot/|crawler|spider", re.IGNORECASE)
_APP: Final = re.compile(r"Podcasts?/|Spotify/", re.IGNORECASE)

PERHAPS: Final = "perhaps"
"""No reason: one of which nobody can say whether it is late."""

Row = tuple[str, str]


class Read(NamedTuple):
    """A message as it counts: its reason of rejection, or its pixel with its identity, rows and kind. The
    kind says whether it is invalid traffic or a public tag's conversion, which a server may confirm. Its
    minute (epoch ms) and metric apply unless it is a repeat.
    """

    reason: str
    pixel: dict[str, Any]
    identity: tuple[Any, ...] = ()
    rows: tuple[Row, ...] = ()
    invalid: bool = False
    claims: bool = False
    names: tuple[str, ...] = ()
    minute_ms: int = 0


Known = dict[tuple[Any, ...], bool]
"""Identities that have come, and whether each is a public tag's that nobody has confirmed."""


def new(one: Read, known: Known) -> bool:
    """Whether a message is no repeat of one before it; it is known from now on."""
    claimed = known.get(one.identity)
    if claimed is None or (claimed and not one.claims):
        known[one.identity] = one.claims
        return True
    return False


@dataclass(frozen=True)
class Rules:
    """The settings that a history's numbers depend on.

    Attributes:
        denied: who is on the deny-list, by what: listener, household, client.
        perhaps: the placement of pixels of which nobody can say whether they are late, and the label of which
            nobody can say whether a plan listed it then.
        from_server: whether servers' conversions alone count.
        labels: by a pixel's field, the only names of it that count; of other fields all do.
    """

    lateness_ms: int
    bound_ms: int
    perhaps: str = ""
    denied: Mapping[str, str] = field(default_factory=dict)
    platform_basis: Mapping[str, str] = field(default_factory=dict)
    invalid_agents: Mapping[str, str] = field(default_factory=dict)
    app_rows: bool = False
    from_server: bool = False
    labels: Mapping[str, Collection[str]] = field(default_factory=dict)


class Model:
    """The log of a history.

    Args:
        partitions: their messages with the times at which they came, epoch ms.

    Attributes:
        unsure: by scope, the pixels of which nobody can say whether their label counts.
        receipts_ms: the receipt of each partition's first message.
    """

    def __init__(self, partitions: Mapping[str, Sequence[tuple[int, bytes]]], rules: Rules) -> None:
        self.rules, self.perhaps = rules, rules.perhaps
        self.unsure, self.receipts_ms = Counter[str](), dict[str, int]()
        self._accounts = dict[tuple[str, int], Counter[str]]()
        self._counted: tuple[Any, dict[Row, Counter[str]]] | None = None
        self._prefix: tuple[Mapping[str, int], list[Read]] | None = None
        self._times: tuple[Mapping[str, int], dict[Row, list[int]]] | None = None
        self.read = {name: self._read(some) for name, some in partitions.items()}
        for name, some in partitions.items():
            for at_ms, raw in some[:1]:
                reason, pixel = read(raw, at_ms)
                self.receipts_ms[name] = at_ms if reason else pixel["received_ms"]

    def _read(self, some: Sequence[tuple[int, bytes]]) -> list[Read]:
        """The messages of a partition in their order, each judged by those before it."""
        found, greatest_ms, watermark_ms, lows = list[Read](), 0, 0, dict[str, int]()
        log_ms, newest_ms, off_since = 0, 0, dict[str, int]()
        for at_ms, raw in some:
            log_ms += min(max(at_ms - newest_ms, 0), LONGEST_STEP_MS) if newest_ms else 0
            newest_ms = max(newest_ms, at_ms)
            reason, pixel = read(raw, at_ms)
            if not self.rules.app_rows:
                pixel.pop("app", None)
            for name, listed in self.rules.labels.items() if not reason else ():
                if pixel.get(name) not in listed:
                    self.unsure[name] += pixel.pop(name, None) == self.perhaps
            one = Read(reason, pixel) if reason else self._pixel(pixel)
            if "low_ms" in pixel and said(pixel.get("collector")):
                if pixel.get("bye"):
                    lows.pop(pixel["collector"], None)
                else:
                    low_ms = min(pixel["low_ms"], at_ms)
                    lows[pixel["collector"]] = max(lows.get(pixel["collector"], 0), low_ms)
                    if abs(pixel.get("now_ms", at_ms) - at_ms) > CLOCK_OFF_MS:
                        off_since.setdefault(pixel["collector"], log_ms)
                    elif "now_ms" in pixel:
                        off_since.pop(pixel["collector"], None)
            if not reason:
                greatest_ms = max(greatest_ms, pixel["own_ms"])
            waits = [
                low for name, low in lows.items() if log_ms - off_since.get(name, log_ms) < CLOCK_HOLDS_MS
            ]
            if waits:  # marks move time, too
                reached_ms = max(greatest_ms - self.rules.bound_ms, min(waits) - QUIET_MS)
                watermark_ms = max(watermark_ms, min(reached_ms, min(waits) - self.rules.bound_ms))
            elif greatest_ms:
                watermark_ms = max(watermark_ms, greatest_ms - self.rules.bound_ms)
            if not reason:
                end_ms = pixel["own_ms"] // 60_000 * 60_000 + 60_000
                if pixel.get("placement_id") == self.perhaps:
                    one = one._replace(reason=PERHAPS)
                elif end_ms + self.rules.lateness_ms <= watermark_ms:
                    one = one._replace(reason="too_late")
                one = one._replace(names=(*self._names(one),), minute_ms=end_ms - 60_000)
            found.append(one)
        return found

    def _pixel(self, pixel: dict[str, Any]) -> Read:
        """A pixel that is well-formed."""
        event, bot = pixel["event"], self._invalid(pixel)
        claimed = apart = False
        if event == "conversion":
            bought = pixel["conversion"]
            order = said(bought.get("order_id"))
            names = (order,) if order is None else (bought["type"], order)
            identity: tuple[Any, ...] = (bot, pixel.get("campaign_id"), *names, event)
            if order is None:
                identity = (*identity, pixel["event_id"])
            claimed = bought.get("claimed") is True
            apart = claimed and self.rules.from_server
            identity = (*identity, "apart") if apart else identity
        elif pixel.get("play_id"):
            identity = (bot, pixel["placement_id"], pixel["play_id"], event)
            playhead = pixel.get("playhead_ms")
            if event == "progress":
                identity = (*identity[:-1], None if playhead in (-1, -2) else playhead, event)
        else:
            identity = (bot, pixel["placement_id"], pixel["event_id"], None)
        claims = claimed and not apart and not bot
        return Read("", pixel, identity, tuple(rows_of(pixel)), bot, claims)

    def _invalid(self, pixel: Mapping[str, Any]) -> bool:
        agent = pixel.get("user_agent", "")
        agent = agent.encode()[:1024].decode(errors="ignore")
        if pixel.get("invalid_traffic") or (_BOT.search(agent) and not _APP.search(agent)):
            return True
        return any(
            re.search(own, agent, re.IGNORECASE) for own in self.rules.invalid_agents.values() if agent
        )

    def counted_since_ms(self, positions: Mapping[str, int]) -> int:
        """The least receipt of a first message, with so much of each partition read; 0 if there is none."""
        return min((self.receipts_ms[name] for name, position in positions.items() if position), default=0)

    def accepted(self, positions: Mapping[str, int]) -> list[Read]:
        """The valid pixels that count, when so much of each partition was read."""
        if self._prefix is None or self._prefix[0] != positions:  # most flushes have no new pixel
            known = Known()
            found = [one for one in self._so_far(positions) if new(one, known)]
            found = [one for one in found if not one.reason and not one.invalid]
            self._prefix = dict(positions), found
        return self._prefix[1]

    def behind(self, positions: Mapping[str, int]) -> dict[str, str]:
        """Pairs of a server's conversion and the earlier public tag's of the same order, by event id."""
        claimed, found = dict[tuple[Any, ...], str](), dict[str, str]()
        for one in self.accepted(positions):
            name = str(one.pixel["event_id"])
            if one.claims:
                claimed[one.identity] = name
            elif one.identity in claimed:
                found[name] = claimed.pop(one.identity)
        return found

    def _so_far(self, positions: Mapping[str, int]) -> list[Read]:
        some = [one for name, position in positions.items() for one in self.read[name][:position]]
        return [one for one in some if one.identity and one.reason != PERHAPS]

    def rows(self, positions: Mapping[str, int], since_ms: Mapping[Row, int]) -> dict[Row, Counter[str]]:
        """The counts of every row when so much of each partition was read; those that are 0 are left out.

        Args:
            since_ms: of rows that have a plan, from which minute on their flights count.
        """
        asked = (dict(positions), dict(since_ms))
        if self._counted is None or self._counted[0] != asked:  # most flushes have no new pixel
            self._counted = asked, self._rows(positions, since_ms)
        return self._counted[1]

    def _rows(self, positions: Mapping[str, int], since_ms: Mapping[Row, int]) -> dict[Row, Counter[str]]:
        rows: dict[Row, Counter[str]] = defaultdict(Counter)
        reached: dict[Row, set[str]] = defaultdict(set)
        known, plays = Known(), dict[tuple[Any, ...], dict[str, Read]]()
        bases, confirmed = dict[tuple[Any, ...], set[str]](), set[tuple[Any, ...]]()

        def flown(one: Read) -> Sequence[Row]:
            """The rows in whose flight a pixel is."""
            if not since_ms:
                return one.rows
            return [row for row in one.rows if row not in since_ms or one.minute_ms >= since_ms[row]]

        for one in self._so_far(positions):
            first = new(one, known)
            names = one.names if first or one.reason else REPEATED
            inside = flown(one)
            for row in one.rows:
                counts, counted = rows[row], row in inside
                for name in names:
                    if counted or name in ALWAYS:
                        counts[name] = counts.get(name, 0) + 1
            event, play = one.pixel["event"], one.identity[:-1]
            if not one.reason and not one.invalid and event == "impression":
                bases.setdefault(one.identity, set()).add(self._basis(one.pixel))
            if not one.reason and not one.invalid and event == "start" and one.pixel.get("device_confirmed"):
                confirmed.add(one.identity)
            if "pixels" in names:
                who = one.pixel.get("listener_id")
                known_one = who is not None and who != self.rules.denied.get("listener")
                if known_one and "consented" in names and event in ("impression", "start"):
                    for row in inside:
                        reached[row].add(str(who))
                if one.pixel.get("play_id") or event == "impression":
                    of = play if one.pixel.get("play_id") else one.identity
                    plays.setdefault(of, {})[event] = one
        for heard in plays.values():
            if "start" in heard:
                furthest = max((at for at, event in enumerate(MILESTONES) if event in heard), default=-1)
                linked = ["starts", *list(MILESTONES.values())[: furthest + 1]]
                linked += ["confirmed_plays"] * (heard["start"].identity in confirmed)
                for row in flown(heard["start"]):
                    counts = rows[row]
                    for name in linked:
                        counts[name] += 1
            if "impression" in heard:
                strongest = min(bases[heard["impression"].identity], key=BASES.index)
                for row in flown(heard["impression"]):
                    rows[row][f"impressions_{strongest}"] += 1
        for row, who in reached.items():
            rows[row]["reach"] = len(who)
        return rows

    def heard_ms(self, positions: Mapping[str, int], row: Row) -> int:
        """The time of a row's last pixel of these; 0 if there is none."""
        return max(self._times_ms(positions).get(row, ()), default=0)

    def first_ms(self, positions: Mapping[str, int], row: Row) -> int:
        """The time of a row's first pixel of these; 0 if there is none."""
        return min(self._times_ms(positions).get(row, ()), default=0)

    def longest_gap_ms(self, positions: Mapping[str, int], row: Row) -> int:
        """The longest time between two pixels of a row, of these, that come next to each other in time."""
        times = sorted(self._times_ms(positions).get(row, ()))
        return max((b - a for a, b in pairwise(times)), default=0)

    def _times_ms(self, positions: Mapping[str, int]) -> dict[Row, list[int]]:
        """The times of each row's pixels."""
        if self._times is None or self._times[0] != positions:
            found = defaultdict[Row, list[int]](list)
            for one in self.accepted(positions):
                for row in one.rows:
                    found[row].append(one.pixel["own_ms"])
            self._times = dict(positions), dict(found)
        return self._times[1]

    def impressions_ms(self, positions: Mapping[str, int], row: Row) -> list[int]:
        """The minute of each impression of a row."""
        some = (one for one in self.accepted(positions) if row in one.rows)
        return [one.minute_ms for one in some if one.pixel["event"] == "impression"]

    def _basis(self, pixel: Mapping[str, Any]) -> str:
        told = pixel.get("basis")
        usual = self.rules.platform_basis.get(pixel.get("platform", ""), "vast_impression")
        return str(told) if told in BASES else usual

    def _names(self, one: Read) -> Iterator[str]:
        """The metrics in which a pixel counts in each of its rows unless it is a repeat, independent of later
        pixels.
        """
        if one.reason:
            yield "too_late"
        elif one.invalid:
            yield "invalid_traffic"
        else:
            event = one.pixel["event"]
            yield "pixels"
            if one.pixel.get("consent") is True:
                yield "consented"
            if event in PLAIN:
                yield PLAIN[event]
            if event == "delivered":
                yield "deliveries"
            if event in UNLINKED and not one.pixel.get("play_id"):
                yield UNLINKED[event]
                if event == "start" and one.pixel.get("device_confirmed"):
                    yield "confirmed_plays"

    def account(self, partition: str, position: int) -> Counter[str]:
        """How many messages of a partition were received, and rejected, by reason."""
        if (partition, position) in self._accounts:
            return self._accounts[partition, position]
        some = self.read[partition][:position]
        marks = sum(one.reason == "mark" for one in some)
        found = Counter({"received": len(some) - marks, "marks": marks})
        found.update(f"rejected.{one.reason}" for one in some if one.reason and one.reason != "mark")
        if found.pop(f"rejected.{PERHAPS}", 0):
            del found["rejected.too_late"]
        self._accounts[partition, position] = found
        return found


def rows_of(pixel: Mapping[str, Any]) -> list[Row]:
    """The rows in which a pixel counts by its own fields."""
    return [(scope, pixel[name]) for scope, name in SCOPES.items() if pixel.get(name)]
