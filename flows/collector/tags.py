"""Tags: the URLs that a marketer pastes into a vendor's form, built from the vendor's dialect.

Macros stand in them raw, since no vendor replaces one that is percent-encoded; values are encoded. Facts that
the vendor cannot send are reported in words, before the flight instead of after it.
"""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final
from urllib.parse import quote, urlsplit
from xml.sax.saxutils import escape

from flows.collector.cleaner import is_text, present
from flows.collector.dialects import NATIVE, Dialect, Word, plain
from flows.collector.query import decoded
from flows.collector.reading import PER_FIRE
from flows.collector.signatures import DEBUG, LABELS, Signatures
from flows.errors import UsageError
from flows.model.catalogue.events import ONCE_HEARD
from flows.model.catalogue.fields import UNSIGNED_FIELDS
from flows.model.catalogue.limits import LONGEST_ID
from flows.model.events import CODES, CONVERSION_TYPES

LONGEST_URL: Final = 2_000
"""The greatest length of a URL with its macros in it: vendors' forms take no more."""
DEBUG_FOR_S: Final = 86_400
"""Seconds for which a line of `curl` shows the door's verdict."""
VENDOR: Final = "GDPR_CONSENT_VENDOR"
"""The placeholder in macros for the IAB's `GDPR_CONSENT_<vendor id>`."""
CONSENT_STRINGS: Final = ("gdpr_consent", "gpp", "us_privacy")
"""Words whose values are strings on consent."""
_SHORT: Final = {word: name for name, word in NATIVE.items()}
_MACRO: Final = re.compile(r"\[[A-Z_]+\]|\$\{\w+\}|\{[\w.]+\}|@[\w.-]+@|%%\w+%%|%[a-z]+!|\(acast-[\w-]+\)")
_SIGNED: Final = ("placement_id", "campaign_id")
"""Words that a signature covers even if they are absent: the value that replaces a macro was never signed."""
WORD_OF: Final = {"placement": "placement_id", "campaign": "campaign_id", "creative": "creative_id"}
"""The words of ids, by the names that people use; the word of a label is its name."""
_LITERAL: Final = (*UNSIGNED_FIELDS, *LABELS)


@dataclass(frozen=True, slots=True)
class Order:
    """The order of a set of tags.

    Args:
        base: public address of the doors, such as `https://pixels.example.com`.
        words: literal ids and labels by word.
        events: events with a URL each; empty for the usual events, as many as the vendor takes.
        target: the URL to which a click leads; empty for a click that is a pixel only.
        vendor: the operator's id in the Global Vendor List, if any.
    """

    base: str
    words: Mapping[str, str]
    events: tuple[str, ...] = ()
    target: str = ""
    vendor: int | None = None


@dataclass(frozen=True, slots=True)
class Built:
    """Tags by event, and warnings of the facts that the vendor cannot send.

    Attributes:
        click_pixel: the pixel that a VAST player fetches for a click of `urls` that redirects; else empty.
    """

    urls: Mapping[str, str]
    warnings: tuple[str, ...] = field(default=())
    click_pixel: str = ""


def build(name: str, dialect: Dialect, order: Order, signatures: Signatures | None) -> Built:
    """Build the tags of one placement at one vendor.

    Args:
        signatures: None for unsigned tags.

    Raises:
        UsageError: an id that the door would read otherwise than it is written, an unknown event, more URLs
            than the vendor takes, or a URL that is too long.
    """
    base = _base(order.base)
    for word, value in order.words.items():
        _check(word, value)
    if dialect.use == "postback":
        return _postback(name, dialect, base, order, signatures)
    if "placement_id" not in order.words:
        raise UsageError("a tag needs a placement: --placement")
    events = order.events or (
        ONCE_HEARD if dialect.urls is None or dialect.urls >= len(ONCE_HEARD) else ONCE_HEARD[:1]
    )
    for event in events:
        if event not in CODES or event == "conversion":
            raise UsageError(
                f"{event!r} is no event of a placement: it takes {', '.join(ONCE_HEARD)}, click, …"
            )
    if dialect.urls is not None and len(events) > dialect.urls:
        raise UsageError(f"{name} takes {dialect.urls} URLs for an ad, and these are {len(events)}")
    urls = {event: _url(name, dialect, base, order, event, signatures) for event in dict.fromkeys(events)}
    for event, url in urls.items():
        if len(url) > LONGEST_URL:
            raise UsageError(f"{event}: {len(url):,} characters, and vendors take {LONGEST_URL:,}")
    pixel = ""
    if "click" in urls and order.target:
        pixel = _url(name, dialect, base, replace(order, target=""), "click", signatures)
    return Built(urls, tuple(_warnings(name, dialect, order, signatures)), pixel)


def _base(url: str) -> str:
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.fragment:
        raise UsageError(f"{url!r} is no address of the doors: https://pixels.example.com")
    return url.rstrip("/")


def _check(word: str, value: str) -> None:
    """Check that the door will read a literal value as it is written, or its signature would fail there."""
    label = word.removesuffix("_id")
    if len(value) > LONGEST_ID:
        raise UsageError(f"the {label} has {len(value)} characters, and {LONGEST_ID} are the most")
    if present(value)[0] != value:
        raise UsageError(
            f"the {label} {value!r} would be read as none: it looks like a macro or a placeholder"
        )
    if not is_text(value):
        raise UsageError(f"the {label} {value!r} would be read as none: it has a control character")
    if (read_value := decoded(quote(value, safe="", errors="replace"))) != value:
        raise UsageError(f"the {label} {value!r} would be read as {read_value!r}: name it without a %")


def _url(
    name: str, dialect: Dialect, base: str, order: Order, event: str, signatures: Signatures | None
) -> str:
    words = order.words
    parts = _literal(event, words, signatures)
    for word, macro in _macros(dialect, order.vendor).items():
        if word not in words and not (signatures is not None and word in _SIGNED):
            parts.append(f"{_SHORT.get(word, word)}={macro}")
    door = "p"
    if event == "click" and order.target:
        door = "c"
        parts.append(f"u={_between_macros(order.target)}")
        if signatures is not None:
            try:
                parts.append(f"s={signatures.of_target(order.target)}")
            except ValueError as error:
                raise UsageError(f"a click leads there: {error}") from None
    path = f"/{door}/{name}" if name != "native" else f"/{door}"
    return f"{base}{path}?{'&'.join(parts)}"


def _literal(event: str, words: Mapping[str, str], signatures: Signatures | None) -> list[str]:
    """The parameters of a tag that are the same in each call, with the signature."""
    ids = [f"{_SHORT[word]}={quote(words[word], safe='')}" for word in _LITERAL if word in words]
    if signatures is None:
        return [f"e={event}", *ids]
    signature = signatures.of_tag(words.get("placement_id"), words.get("campaign_id"), _labels(words))
    return [f"e={event}", *ids, f"k={signature}"]


def _postback(name: str, dialect: Dialect, base: str, order: Order, signatures: Signatures | None) -> Built:
    words = {word: value for word, value in order.words.items() if word not in LABELS}
    parts = [f"{_SHORT[word]}={quote(value, safe='')}" for word, value in words.items()]
    if signatures is not None:
        parts.append(f"k={signatures.of_tag(words.get('placement_id'), words.get('campaign_id'))}")
    url = f"{base}/b/{name}?{'&'.join(parts)}"
    return Built({"postback": url}, tuple(_warnings(name, dialect, order, signatures)))


def _labels(words: Mapping[str, str]) -> dict[str, str]:
    return {label: words[label] for label in LABELS if label in words}


def _macros(dialect: Dialect, vendor: int | None) -> dict[str, str]:
    """The vendor's macros by word, without those that need our vendor id if there is none."""
    macros = {word: plain(macro) for word, macro in dialect.macros.items()}
    return {
        word: macro.replace(VENDOR, f"GDPR_CONSENT_{vendor}")
        for word, macro in macros.items()
        if vendor is not None or VENDOR not in macro
    }


def _between_macros(target: str) -> str:
    """A click's target, percent-encoded except for its macros."""
    encoded, end = [], 0
    for match in _MACRO.finditer(target):
        encoded += [quote(target[end : match.start()], safe=""), match.group()]
        end = match.end()
    return "".join([*encoded, quote(target[end:], safe="")])


def _warnings(name: str, dialect: Dialect, order: Order, signatures: Signatures | None) -> list[str]:
    """Warnings of the facts that these tags cannot carry."""
    warnings, macros = [], _macros(dialect, order.vendor)
    if dialect.use == "tag":
        if not any(word in macros for word in CONSENT_STRINGS):
            waits = any(VENDOR in plain(macro) for macro in dialect.macros.values())
            warnings.append(
                f"no consent: {name} fills in ${{GDPR_CONSENT_<vendor id>}}: set AUDIOPIXEL_COLLECT_VENDOR"
                if waits
                else f"no consent: {name} has no macro of a consent string that is known; where consent is "
                "required these plays count, and are in no reach, frequency or attribution"
            )
        if "play_id" not in macros:
            warnings.append(
                f"no play id: {name} has no macro for it; each pixel counts by itself, so that a completion "
                "rate divides complete pixels by start pixels, whatever their plays"
            )
        if dialect.play_names_listener:
            warnings.append(
                f"{name}'s play id contains the listener's id: it counts, hashed, with consent alone"
            )
        if not any(word in macros for word in PER_FIRE):
            warnings.append(
                "no cachebuster: a retry cannot be told from another listener's call, and counts again"
            )
    if dialect.urls is not None:
        warnings.append(f"{name} takes {dialect.urls} URLs for an ad")
    unsure = sorted(
        f"{plain(macro)} ({macro.status})"
        for word, macro in dialect.macros.items()
        if isinstance(macro, Word) and word in macros
    )
    if dialect.status != "documented":
        warnings.append(
            f"{name}: nothing of it is documented in public ({dialect.status}); try the tag first"
        )
    elif unsure:
        warnings.append(f"not documented by {name}, so try them first: {', '.join(unsure)}")
    if dialect.device_from is not None or "ip" in macros:
        warnings.append(
            f"{name}'s servers may call for the listener's device: their calls count if their network is in "
            "AUDIOPIXEL_COLLECT_SERVERS or they have a token; else these plays are invalid traffic "
            "(unverified_server)"
        )
    if dialect.note:
        warnings.append(dialect.note)
    if signatures is None:
        warnings.append("unsigned: a collector that takes signed tags alone (the default) rejects them")
    if order.base.startswith("http://"):
        warnings.append("http: players on secure pages do not fetch it, and anybody on the way reads it")
    return warnings


# Forms in which tags are handed over


def as_vast(built: Built) -> str:
    """Tags as the parts of a VAST document: `<Impression>`, `<Error>`, `<TrackingEvents>`, `<VideoClicks>`.

    A player fetches the `<ClickTracking>` as a pixel, and opens the `<ClickThrough>`. A click that redirects
    is therefore the `<ClickThrough>`, marked so that it does not count once more.

    Raises:
        UsageError: `progress`, which VAST ties to an offset.
    """
    urls = built.urls
    if "progress" in urls:
        raise UsageError("VAST ties progress to an offset: write that <Tracking> by hand")
    lines = []
    for event, tag in (("impression", "Impression"), ("error", "Error")):
        if event in urls:
            lines.append(f"<{tag}>{_cdata(urls[event])}</{tag}>")
    apart = ("impression", "error", "click", "delivered", "download")
    if tracked := [event for event in urls if event not in apart]:
        lines.append("<TrackingEvents>")
        lines += [f'  <Tracking event="{event}">{_cdata(urls[event])}</Tracking>' for event in tracked]
        lines.append("</TrackingEvents>")
    if "click" in urls:
        pixel = built.click_pixel or urls["click"]
        lines += ["<VideoClicks>", f"  <ClickTracking>{_cdata(pixel)}</ClickTracking>"]
        if built.click_pixel:
            through = f"{urls['click']}&{_SHORT['tracked']}=1"
            lines.append(f"  <ClickThrough>{_cdata(through)}</ClickThrough>")
        lines.append("</VideoClicks>")
    return "\n".join(lines)


def _cdata(url: str) -> str:
    return escape(url) if "]]>" in url else f"<![CDATA[{url}]]>"


def as_curl(base: str, words: Mapping[str, str], signatures: Signatures | None, now_s: float) -> str:
    """A line for a shell that sends one impression of a placement and shows the door's verdict.

    Args:
        words: `placement_id` and the other labels, literally.
        signatures: None for an unsigned pixel, whose verdict is shown on the door's own machine alone.
        now_s: epoch s; the verdict is shown for `DEBUG_FOR_S` from then on.

    Raises:
        UsageError: `base` is no address, or the door would read an id otherwise than it is written.
    """
    for word, value in words.items():
        _check(word, value)
    url = f"{_base(base)}/p?{'&'.join(_literal('impression', words, signatures))}"
    if signatures is not None:
        url += f"&{DEBUG}={signatures.of_debug(int(now_s) + DEBUG_FOR_S)}"
    now = "$(date +%s)"
    return f"curl -sSD- -o/dev/null -A Mozilla/5.0 {shlex.quote(f'{url}&p=')}{now}{shlex.quote('&cb=')}{now}"


def as_body(name: str, built: Built) -> dict[str, Any]:
    """Tags as JSON."""
    tags = [{"event": event, "url": url} for event, url in built.urls.items()]
    return {"dialect": name, "tags": tags, "warnings": list(built.warnings)}


def snippet(base: str, kind: str, campaign: str | None, signatures: Signatures | None) -> str:
    """The snippet that a site puts into its page to send conversions.

    Raises:
        UsageError: there is no such kind of conversion.
    """
    if kind not in CONVERSION_TYPES:
        raise UsageError(f"{kind!r} is no conversion: it takes {', '.join(CONVERSION_TYPES)}")
    if campaign is not None:
        _check("campaign_id", campaign)
    fixed: dict[str, str] = {"e": "conversion", "ct": kind}
    if campaign is not None:
        fixed["cm"] = campaign
    if signatures is not None:
        fixed["k"] = signatures.of_tag(None, campaign)
    return _SNIPPET.replace("DOOR", _script(f"{_base(base)}/p")).replace("FIXED", _script(fixed))


def _script(value: object) -> str:
    """A value as JavaScript that stands in a page: `</script>` in it must not end the script."""
    return json.dumps(value).replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


_SNIPPET: Final = """\
<script>
/* audiopixel({o: "order-1", v: "12.50", cur: "GBP"}) where the order is confirmed; all three may be missing.
   It sets no cookie. It reads the page's address, its consent strings and the Global Privacy Control. */
function audiopixel(order) {
  var fields = Object.assign({}, FIXED, order, {u: location.href, ts: Date.now()});
  var pending = {page: true};
  function receive(source, consent) {
    if (!pending[source]) return;
    delete pending[source];
    Object.assign(fields, consent);
    if (!Object.keys(pending).length) navigator.sendBeacon(DOOR, new URLSearchParams(fields));
  }
  if (typeof __tcfapi === "function") {
    pending.tcf = true;
    __tcfapi("addEventListener", 2, function (tc, ok) {
      if (!ok || tc.eventStatus === "cmpuishown") return;
      __tcfapi("removeEventListener", 2, function () {}, tc.listenerId);
      var consent = {gdpr_consent: tc.tcString || ""};
      if (typeof tc.gdprApplies === "boolean") consent.gdpr = tc.gdprApplies ? 1 : 0;
      receive("tcf", consent);
    });
  }
  if (typeof __gpp === "function") {
    pending.gpp = true;
    __gpp("addEventListener", function (event, ok) {
      var ping = ok && event.pingData;
      if (!ping) return receive("gpp", {gpp: "unreadable"});
      if (ping.signalStatus !== "ready") return;
      __gpp("removeEventListener", function () {}, event.listenerId);
      receive("gpp", {gpp: ping.gppString || "", gpp_sid: (ping.applicableSections || []).join(",")});
    });
  }
  receive("page", navigator.globalPrivacyControl ? {gpc: 1} : {});
}
</script>"""
