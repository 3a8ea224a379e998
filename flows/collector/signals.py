"""The consent signals of a call: its parameters, its body, and the header of the Global Privacy Control."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from flows.collector.call import Call
from flows.collector.callers import Caller
from flows.collector.consent import Signals
from flows.collector.reading import Reading

_SIGNALS: Final[tuple[str, ...]] = (
    *("gdpr", "lmt", "coppa", "gpc", "regulations"),
    *("gdpr_consent", "gpp", "us_privacy"),
)


def signals_of(call: Call, reading: Reading, caller: Caller) -> Signals:
    """The consent signals of a call. The parameter `consent` counts if the caller may write or calls from a
    trusted network, and a country if the caller may name a device.
    """
    sec_gpc = call.headers.get("sec-gpc", "")
    words, signal_words = reading.words, _SIGNALS
    if caller.may_say_consent:
        signal_words += ("consent",)
    if "gpp" in words:
        signal_words += ("gpp_sid",)
    own_consent = words.get("consent") if caller.may_say_consent else None
    return Signals(
        gdpr=words.get("gdpr"),
        tc_string=words.get("gdpr_consent", ""),
        gpp=words.get("gpp", ""),
        gpp_sid=words.get("gpp_sid", ()),
        us_privacy=words.get("us_privacy", ""),
        lmt=bool(words.get("lmt")),
        child=bool(words.get("coppa")),
        gpc=bool(words.get("gpc")) or (sec_gpc != "" and "1" in map(str.strip, sec_gpc.split(","))),
        country=_country(words) if caller.trusted else "",
        own_consent=own_consent if isinstance(own_consent, bool) else None,
        unreadable=not sec_gpc.isascii() or (bool(reading.cleaned) and reading.unreadable(*signal_words)),
    )


def _country(words: Mapping[str, Any]) -> str:
    """The country of a call, ISO 3166-1 alpha-2; empty for another text. A code of three letters is not cut:
    Austria (AUT) would become Australia (AU).
    """
    country = words.get("country", "").upper()
    return country if len(country) == 2 else ""
