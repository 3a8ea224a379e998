"""Makes calls of players, ad servers and site tags: URLs of real tags, with the counts that each must add."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta, timezone
from typing import Any, Final, NamedTuple
from urllib.parse import quote, urlencode, urlsplit

import msgspec

from flows.collector.callers import DeviceFrom
from flows.collector.dialects import Dialect, plain
from flows.collector.reading import PER_FIRE
from flows.collector.signatures import Signatures
from flows.collector.tags import Order, build
from flows.demo.caller import Fire
from flows.model.basis import BASES
from flows.model.catalogue.events import ONCE_HEARD
from flows.simulate import PlayTruth, Truth

BASE: Final = "https://pixels.example"
CAMPAIGN: Final = "door"
TARGET: Final = "https://shop.example/offer"
YES: Final = "CQtDjkAQtDjkAAfAAAENCWFgAIKAAAAAAAwIAEEkAAAAAAAA.IAEEkAAA.YAAAAAAAAAAA"
NO: Final = "CQtDjkAQtDjkAAfAAAENCWFgAAAAAAAAAAwIAAAAAAAA.IAAA.YAAAAAAAAAAA"
OPTED_OUT: Final = "DBACTvA~1---~BUkAAABA.QA~BFoAABA"
"""Strings of consent platforms: consent to measurement, no consent, and an opt-out in California."""
PLAYERS: Final = (
    "Mozilla/5.0 (iPhone; CPU iPhone OS 18_5 like Mac OS X) AppleWebKit/605.1.15 Safari/604.1",
    "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 Chrome/130.0 Safari/537.36",
    "Spotify/8.9.10 iOS/17.4 (iPhone14,5)",
)
ROBOTS: Final = (
    "Mozilla/5.0 (compatible; bingbot/2.0; +http://www.bing.com/bingbot.htm)",
    "Mozilla/5.0 (compatible; Googlebot/2.1; +http://www.google.com/bot.html)",
)
HOSTED: Final = ("delivered", "download")
"""Events that only a podcast's host reports."""
_NATIVE_WORDS: Final = ("play_id", "listener_id", "gdpr", "gdpr_consent", "lmt", "ts", "cachebuster")
"""Parameters of a tag without macros."""
OPTIONAL: Final = (
    *("creative_id", "station", "program", "podcast", "episode", "ifa_type", "content_category"),
    *("gdpr_consent", "playhead", "ifa", "listener_id", "platform"),
)
"""Fields whose macro a vendor may leave unreplaced."""
DIALECTS: Final = ("native", "vast4", "triton", "acast", "prx", "gam", "adcp")
LISTENERS: Final = 400
CONVERSION_SHARE, BATCH_SHARE, NOBODY_SHARE = 0.05, 0.05, 0.06
"""Shares of the kinds of callers. The other calls are plays at a vendor."""
BATCH: Final = 4
"""The number of impressions that the ad server sends at once."""
ROBOT_SHARE: Final = 0.05
FORGED_SHARE: Final = 0.04
"""The share of a vendor's plays whose calls name another device, which the collector cannot verify."""
HOSTS: Final[Mapping[str, DeviceFrom]] = {"198.51.100.0/24": "xff-first"}
"""The known servers of the demo's collector (`AUDIOPIXEL_COLLECT_SERVERS`): those of the podcast's host."""
_HOST: Final = "198.51.100.7"


class Called(NamedTuple):
    """A call, with the counts that each of its events must give, or the reason why an event is rejected or
    not counted.
    """

    fire: Fire
    event_ms: int
    truths: tuple[Truth, ...] = ()
    rejected: tuple[str, ...] = ()
    not_counted: str = ""


@dataclass
class Scene:
    """All callers of the demo.

    Args:
        token: the `NAME.SECRET` of the ad server that sends its own events.
    """

    dialects: Mapping[str, Dialect]
    signatures: Signatures
    token: str
    seed: int
    _play_count: int = 0
    _tags: dict[str, Mapping[str, str]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._dice = random.Random(self.seed)
        for name in DIALECTS:
            words = {"placement_id": f"door-{name}", "campaign_id": CAMPAIGN}
            order = Order(BASE, words, (*ONCE_HEARD, *HOSTED, "click"), TARGET)
            self._tags[name] = build(name, self.dialects[name], order, self.signatures).urls

    @property
    def placements(self) -> list[str]:
        """All placements of the scene."""
        return [*self.impressions_a_play()]

    @staticmethod
    def impressions_a_play() -> dict[str, float]:
        """The average number of impressions of each placement for one `play`. Robots and unverified servers
        add none.
        """
        heard = (1 - CONVERSION_SHARE - BATCH_SHARE - NOBODY_SHARE) * (1 - ROBOT_SHARE) / len(DIALECTS)
        honest = dict.fromkeys(DIALECTS, 1 - FORGED_SHARE) | {"prx": 1}
        return {f"door-{name}": heard * share for name, share in honest.items()} | {
            "door-adserver": BATCH_SHARE * BATCH
        }

    def play(self) -> Iterator[tuple[float, Called]]:
        """A play, or another kind of caller, as its calls with the seconds to wait before each."""
        self._play_count += 1
        dice = self._dice.random()
        if dice < CONVERSION_SHARE:
            yield 0.0, self._conversion()
        elif dice < CONVERSION_SHARE + BATCH_SHARE:
            yield 0.0, self._batch()
        elif dice < CONVERSION_SHARE + BATCH_SHARE + NOBODY_SHARE:
            yield 0.0, self._nobody()
        else:
            yield from self._heard(self._dice.choice(DIALECTS))

    # A play at a vendor

    def _heard(self, name: str) -> Iterator[tuple[float, Called]]:
        dice, dialect, urls = self._dice, self.dialects[name], self._tags[name]
        listener, robot = dice.randrange(LISTENERS), dice.random() < ROBOT_SHARE
        forged = dice.random() < FORGED_SHARE and name != "prx"
        agent = dice.choice(ROBOTS if robot else PLAYERS)
        words = set(dialect.macros) or {*_NATIVE_WORDS}
        missing = set(dice.sample(OPTIONAL, 3)) if dice.random() < 0.1 else set()
        filled = words - missing
        consent = dice.choices(("yes", "tcf", "gpp", "lmt", "none"), (6, 1, 1, 1, 1))[0]
        consented = consent == "yes" and "gdpr_consent" in filled
        linked = "play_id" in filled and (consented or not dialect.play_names_listener)
        identified = bool(filled & {"listener_id", "ifa"}) and not forged
        play = _Play(f"d{self.seed}-{self._play_count}", listener, agent, consent, dice.random() < 0.03)
        truth = PlayTruth(f"door-{name}", listener, linked, robot or forged)
        for event in [*(HOSTED if name == "prx" else ()), *self._script()]:
            now_ms = time.time_ns() // 1_000_000
            values = play.values(
                event, now_ms, dice, dialect.time or dice.choice(("s", "ms", "us", "iso", "offset"))
            )
            url = _filled(urls[event], dialect, {word: values[word] for word in filled & values.keys()})
            headers = {"user-agent": agent, "x-forwarded-for": play.address}
            if name == "prx":
                headers |= {"x-forwarded-for": f"{play.address}, {_HOST}"}
            if forged:
                headers |= {"x-forwarded-for": f"8.8.8.8, {play.address}", "x-device-ip": "8.8.4.4"}
            fire = Fire(url, headers)
            if name == "native" and event != "click" and dice.random() < 0.2:
                path, _, query = url.partition("?")
                fire = Fire(path, headers, "POST", query.encode())
            retries = 2 if filled & set(PER_FIRE) and dice.random() < 0.05 else 1  # as after a proxy's 502
            for _ in range(retries):
                truth_of_pixel = truth.pixel(
                    event, url, None, now_ms, consented, dialect.fixed.get("basis", BASES[0])
                )
                truth_of_pixel = truth_of_pixel if identified else truth_of_pixel._replace(listener=None)
                yield dice.uniform(0.2, 1.5), Called(fire, now_ms, (truth_of_pixel,))

    def _script(self) -> list[str]:
        dice = self._dice
        heard = list(ONCE_HEARD if dice.random() < 0.8 else ONCE_HEARD[: dice.randrange(1, 6)])
        if dice.random() < 0.02:
            heard = [one for one in heard if one != "start"]
        return [*heard, *(["click"] if dice.random() < 0.05 else [])]

    # Other callers

    def _conversion(self) -> Called:
        """A conversion by a site's own tag, or by a vendor's postback."""
        dice, now_ms = self._dice, time.time_ns() // 1_000_000
        order = f"o-{self.seed}-{self._play_count}"
        k = self.signatures.of_tag(None, CAMPAIGN)
        headers = {"user-agent": PLAYERS[0], "x-forwarded-for": "81.2.69.7"}
        truth = Truth("accepted", second_total="conversions")
        if dice.random() < 0.5:
            fields = {"action": "purchase", "order_number": order, "order_value": "12.50", "currency": "GBP"}
            query = urlencode(fields | {"cm": CAMPAIGN, "k": k, "timestamp": str(now_ms // 1000)})
            return Called(Fire(f"/b/podscribe?{query}", headers), now_ms, (truth,))
        fields = {"e": "conversion", "ct": "sign_up", "cm": CAMPAIGN, "k": k, "o": order, "ts": str(now_ms)}
        body = urlencode(fields | {"gdpr": "1", "gdpr_consent": YES, "u": "https://shop.example/thanks?x=1"})
        return Called(
            Fire("/p", headers | {"content-type": "text/plain"}, "POST", body.encode()), now_ms, (truth,)
        )

    def _batch(self) -> Called:
        """An ad server's own events, with fields that it may not set, and one unknown event."""
        now_ms = time.time_ns() // 1_000_000
        lines, truths = [], []
        for number in range(BATCH):
            play = f"s{self.seed}-{self._play_count}-{number}"
            listener = self._dice.randrange(LISTENERS)
            event: dict[str, Any] = {
                "event_id": play, "event": "impression", "ts": now_ms, "placement_id": "door-adserver",
                "campaign_id": CAMPAIGN, "play_id": play, "listener_id": f"s-{listener}", "consent": True,
                "collector": "forged", "low_ms": 1, "household_id": "forged",
            }  # fmt: skip
            lines.append(msgspec.json.encode(event))
            truth = PlayTruth("door-adserver", listener, True, False)
            truths.append(truth.pixel("impression", play, None, now_ms, True))
        lines.append(
            msgspec.json.encode({"event_id": "x", "event": "heard", "placement_id": "door-adserver"})
        )
        headers = {"authorization": f"Bearer {self.token}", "user-agent": "adserver/1.0"}
        fire = Fire("/v1/events", headers, "POST", b"\n".join(lines))
        return Called(fire, now_ms, tuple(truths), ("unknown_event",))

    def _nobody(self) -> Called:
        """A call that must not count: a prefetch, a HEAD request, a tag changed by hand, or no event."""
        dice, now_ms = self._dice, time.time_ns() // 1_000_000
        url = _path(self._tags["native"]["start"])
        headers = {"user-agent": PLAYERS[0], "x-forwarded-for": "81.2.69.9"}
        kind = dice.randrange(4)
        if kind == 0:
            return Called(Fire(url, headers | {"sec-purpose": "prefetch"}), now_ms, not_counted="prefetch")
        if kind == 1:
            return Called(Fire(url, headers, "HEAD"), now_ms, not_counted="head")
        if kind == 2:
            wrong = url.replace("door-native", f"mine-{self._play_count}")
            return Called(Fire(wrong, headers), now_ms, rejected=("unsigned",))
        return Called(
            Fire(url.replace("e=start", "e=creativeView"), headers), now_ms, rejected=("unknown_event",)
        )


@dataclass
class _Play:
    id: str
    listener: int
    agent: str
    consent: str
    clock_ahead: bool

    @property
    def address(self) -> str:
        """A public address, which depends on the listener alone."""
        return f"81.2.{64 + self.listener // 250}.{1 + self.listener % 250}"

    def values(self, event: str, now_ms: int, dice: random.Random, spelling: str) -> dict[str, str]:
        """The values that a vendor fills into its macros."""
        happened = now_ms + (400 * 86_400_000 if self.clock_ahead else 0)
        yes, american = self.consent in ("yes", "lmt"), self.consent == "gpp"
        return {
            "play_id": self.id, "event_id": f"{self.id}-{event}", "creative_id": "cr-1", "station": "st-door",
            "program": "prog-door", "podcast": "pod-door", "episode": "ep-1", "platform": "site-door",
            "listener_id": f"l-{self.listener}", "ifa": f"7f3c9a52-0000-4000-8000-{self.listener:012x}",
            "ifa_type": "aaid", "ip": self.address, "user_agent": self.agent, "server_side": "0",
            "gdpr": "0" if american else "1", "regulations": "" if american else "gdpr",
            "gdpr_consent": YES if yes else NO if self.consent == "tcf" else "",
            "gpp": OPTED_OUT if american else "", "gpp_sid": "8" if american else "",
            "us_privacy": "1---", "lmt": "1" if self.consent == "lmt" else "0",
            "ts": _spelt(happened, spelling), "cachebuster": str(dice.randrange(10**9, 10**10)),
            "playhead": "00:00:03.000", "content_category": "150",
        }  # fmt: skip


def _spelt(ms: int, spelling: str) -> str:
    """A time in one of the forms that callers write."""
    moment = datetime.fromtimestamp(ms / 1000, UTC)
    match spelling:
        case "s":
            return str(ms // 1000)
        case "us":
            return str(ms * 1000)
        case "iso":
            return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")
        case "offset":
            return moment.astimezone(timezone(timedelta(hours=1))).isoformat(" ", "seconds")
        case _:
            return str(ms)


def _filled(url: str, dialect: Dialect, values: Mapping[str, str]) -> str:
    """The path of a tag with its macros replaced. A tag without macros gets parameters instead."""
    path = _path(url)
    if not dialect.macros:
        short = {"play_id": "p", "listener_id": "l", "cachebuster": "cb"}
        parameters = {short.get(word, word): value for word, value in sorted(values.items())}
        return f"{path}&{urlencode(parameters)}"
    macros = {word: plain(macro) for word, macro in dialect.macros.items()}
    for word in _longest_first(macros):
        if word in values:
            path = path.replace(f"={macros[word]}", f"={quote(values[word], safe='')}")
    return path


def _longest_first(macros: Mapping[str, str]) -> Sequence[str]:
    return sorted(macros, key=lambda word: -len(macros[word]))


def _path(url: str) -> str:
    parts = urlsplit(url)
    return f"{parts.path}?{parts.query}"
