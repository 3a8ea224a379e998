"""Tables of docs/collector.md and docs/privacy.md, made from the code's own definitions.

`python -m flows.generated` writes them; a test checks that they are current.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta
from typing import Final

from flows.collector.callers import MAX_ADDRESSES
from flows.collector.consent import WORDS as CONSENT_WORDS
from flows.collector.dialects import NATIVE, WORDS, Dialect, load_dialects
from flows.collector.pseudonyms import MAX_DEVICES
from flows.collector.unverified import AGENT_FROM
from flows.erasures import unreached as not_reached
from flows.model.catalogue.fields import IN_LETTERS, SIGNED
from flows.model.catalogue.limits import LIMITS
from flows.settings import Settings

KEPT, BY_URL, HASHED, DECIDES, IN_TOPIC = (
    "as it came",
    "without its query, `utm_*` aside",
    "a keyed hash, with consent alone",
    "decides, and is not kept",
    "with consent alone, in the topic alone",
)
FATES: Final[Mapping[str, str]] = {
    **dict.fromkeys((name for name in IN_LETTERS if name in WORDS and name != "consent"), KEPT),
    **dict.fromkeys(("content_category", "playhead", "duration"), KEPT),
    **dict.fromkeys(("type", "order_id", "value", "currency"), KEPT),
    "landing_url": BY_URL,
    **dict.fromkeys(("listener_id", "ifa", "ip", "user_agent"), HASHED),
    "ga_client_id": IN_TOPIC,
    **dict.fromkeys(
        ("gdpr", "gdpr_consent", "gpp", "gpp_sid", "us_privacy", "regulations", "consent"), DECIDES
    ),
    **dict.fromkeys(("lmt", "coppa", "gpc", "country", "server_side", "ifa_type", "dialect"), DECIDES),
    **dict.fromkeys(("signature", "target_signature", "tracked", "cachebuster"), DECIDES),
}
"""The fate of each parameter of a call, by its meaning."""
HEADERS: Final[Mapping[str, str]] = {
    "the address of the call": HASHED,
    "`User-Agent`, `X-Device-User-Agent`": HASHED,
    "`X-Forwarded-For`, `X-Device-IP`": HASHED,
    "`Authorization`": DECIDES,
    "`Sec-GPC`, `Purpose`, `Range` and their like": DECIDES,
    "anything else: parameters, headers, cookies": "is not read",
}
_PIECES: Final = (
    "segments are deleted whole, once their newest touch is so old: a touch may stay about twice as long"
)
_PLAY_FACTS: Final = (
    ("consent", ("gdpr_consent", "gpp", "us_privacy")),
    ("play", ("play_id",)),
    ("listener", ("listener_id", "ifa")),
    ("time", ("ts",)),
    ("labels", (*SIGNED, "episode")),
)


def vendors() -> str:
    """The table of vendors: the facts that each vendor's macros carry."""
    rows = []
    for name, dialect in load_dialects().items():
        if name == "native":
            continue
        cells = [_cell(dialect, words) for _, words in _PLAY_FACTS]
        rows.append([f"`{name}`", dialect.use, dialect.status, *cells, _urls(dialect)])
    return table(["vendor", "use", "known how", *(name for name, _ in _PLAY_FACTS), "URLs"], rows)


def _cell(dialect: Dialect, words: Sequence[str]) -> str:
    if dialect.use == "postback":
        words_read = {*dialect.fixed, *(str(word) for word in dialect.names.values())}
        return "yes" if words_read & set(words) else "–"
    return "yes" if set(words) & set(dialect.macros) else "–"


def _urls(dialect: Dialect) -> str:
    return str(dialect.urls) if dialect.urls else "any"


def parameters() -> str:
    """Our own parameters."""
    return table(["parameter", "means"], [[f"`{name}`", f"`{word}`"] for name, word in NATIVE.items()])


def consent() -> str:
    """Reasons of decisions on consent."""
    return table(["reason", "the listener"], [[f"`{name}`", words] for name, words in CONSENT_WORDS.items()])


def fields() -> str:
    """The table of a call's parts and their fates."""
    by_fate: dict[str, list[str]] = {}
    for word, fate in FATES.items():
        by_fate.setdefault(fate, []).append(f"`{word}`")
    for part, fate in HEADERS.items():
        by_fate.setdefault(fate, []).append(part)
    return table(["part of a call", "is kept"], [[", ".join(parts), fate] for fate, parts in by_fate.items()])


def places() -> str:
    """The table of personal data: each place, its content, and for how long."""
    rows = [
        [
            "the collector's memory",
            f"the last {MAX_ADDRESSES:,} addresses; of the last {MAX_DEVICES:,} consenting devices "
            "the address and the user agent, with their pseudonyms",
            "until newer ones replace them, or the process ends; nothing of it is on disk",
        ],
        ["the spool", "pseudonyms", "until Kafka has them"],
        ["`audio-pixels`", "pseudonyms, an order's id", "as long as Kafka keeps it: yours to set"],
        ["`audio-pixels-rejected`", "nothing", "as long as Kafka keeps it"],
        [
            "the flow's state: touches",
            "a hash of the pseudonym",
            f"clicks and listens alike the longer of {_days('click_window', 'listen_window')} "
            f"and a day more; {_PIECES}",
        ],
        [
            "the flow's state: touches of households",
            "hashes of the household, 24 bits of the listener's",
            "the longer of the click window and a day more than twice the listen window, by default 30 days; "
            + _PIECES,
        ],
        [
            "the flow's state: frequency",
            "a hash of the pseudonym, with each campaign how many impressions, and the day of the last",
            "60 days after the last impression of that campaign",
        ],
        ["the flow's state: conversions", "hashes, an order's id", _days("conversion_horizon")],
        [
            "the flow's state: reach",
            "sets of hashes, then a sketch",
            f"{_days('row_memory')} after the row's last pixel; of planned rows as long as the plan is "
            "listed, of `other` always. Rows that have ended go in pieces of a quarter of a MiB, each once "
            "its youngest row is so old; the newest piece of a shard stays, however old",
        ],
        ["the flow's state: clients", "a hash of pseudonym and content", "25 hours behind the watermark"],
        ["`conversion-credits`", "an order's id; no listener", "as long as Kafka keeps it"],
        ["Redis: rows, sketches", "no listener", _days("row_ttl") + " after a pixel"],
        ["Redis: decisions on conversions", "an order's id; no listener", _days("decisions_ttl")],
        [
            "Redis: figures of collectors, tags that are silent",
            "the ten networks (/24, /48) that most often name other devices and have no right to; from "
            f"{AGENT_FROM} calls on also the name in front of their user agent",
            "10 minutes; until they fire",
        ],
        ["Redis: the deny-list of `forget`", "hashes", "until you remove it"],
        ["Redis: accounts of `forget`", "hashes, with numbers of touches", "until you remove them"],
        ["the live page", "these networks and names", "as long as Redis has them"],
        ["logs, metrics", "nothing", "–"],
    ]
    return table(["where", "what of a person", "how long, by default"], rows)


def unreached() -> str:
    """The table of data that an erasure does not reach, as a receipt has it."""
    defaults = Settings.model_construct()
    rows = [[place.where, place.until] for place in not_reached(defaults)]
    return table(["not reached", "until when, by default"], rows)


def _days(*names: str) -> str:
    periods = []
    for name in names:
        default = Settings.model_fields[name].default
        assert isinstance(default, timedelta)
        periods.append(f"{default.days} days (`AUDIOPIXEL_{name.upper()}`)")
    return ", ".join(periods)


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table of Markdown."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def limits() -> str:
    """The table of the limits of a call."""
    rows = [[of, f"{most:,} {unit}".strip(), beyond] for of, most, unit, beyond in LIMITS]
    return table(["limit of a call", "at most", "beyond it"], rows)


TABLES: Final[Mapping[str, Callable[[], str]]] = {
    "vendors": vendors,
    "parameters": parameters,
    "consent": consent,
    "fields": fields,
    "limits": limits,
    "places": places,
    "unreached": unreached,
}
