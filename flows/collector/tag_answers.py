"""Answers about tags as JSON, for the command and for a collector's door for tags."""

from __future__ import annotations

import secrets
import time
from collections.abc import Mapping
from typing import Any, Final

import msgspec
from pydantic import SecretStr

from connectors.redis import Client, put_fields, read_rows
from flows.collector import tags
from flows.collector.checker import Checked, check
from flows.collector.dialects import Dialect, load_dialects
from flows.collector.from_settings import signatures_of, understanding_of
from flows.collector.signatures import Signatures
from flows.collector.tag_question import Kind, Question
from flows.collector.understand import IsPlanned, Understanding
from flows.errors import UsageError
from flows.model.catalogue.events import ONCE_HEARD
from flows.model.catalogue.fields import TAGGED
from flows.model.events import CODES, CONVERSION_TYPES
from flows.model.redis_keys import tags_key
from flows.settings import Settings, nearest
from flows.shown import shown

NAMES: Final = TAGGED
LONGEST_FIELD: Final = 4_096
"""The greatest length of a field of a form."""
MAX_NOTED: Final = 10_000
"""The greatest number of placements whose tags were built and have not fired."""


def choices(settings: Settings) -> dict[str, Any]:
    """The choices of a form: dialects with their status, events, kinds of conversions."""
    dialects = load_dialects(settings.collect_dialects)
    return {
        "base": settings.collect_url,
        "signs": bool(settings.collect_signing_keys),
        "dialects": [
            {
                "name": name,
                "use": dialect.use,
                "known_how": dialect.status,
                "urls": dialect.urls,
                "tells": sorted(dialect.macros),
                "note": dialect.note,
            }
            for name, dialect in sorted(dialects.items())
        ],
        "usual_events": ONCE_HEARD,
        "events": sorted(name for name in CODES if name != "conversion"),
        "conversions": CONVERSION_TYPES,
        "names": NAMES,
    }


def dialect_of(settings: Settings, name: str) -> Dialect:
    """The dialect of a name.

    Raises:
        UsageError: there is no such dialect.
    """
    dialects = load_dialects(settings.collect_dialects)
    if name not in dialects:
        near = nearest(name, dialects)
        raise UsageError(f"{shown(name)!r} is no dialect{near}; `audiopixel tag --dialect list` lists all")
    return dialects[name]


def build(settings: Settings, form: Mapping[str, str]) -> tags.Built:
    """Build tags.

    Args:
        form: `dialect`, each of `NAMES`, `events` by comma, `click`, `base`; an empty field is absent.

    Raises:
        UsageError: no such tag can be built.
    """
    name = form.get("dialect") or "native"
    dialect = dialect_of(settings, name)
    events = tuple(event.strip() for event in form.get("events", "").split(",") if event.strip())
    click = form.get("click", "")
    if click:
        events = (*(events or ONCE_HEARD), "click")
    order = tags.Order(_base(settings, form), _words(form), events, click, settings.collect_vendor)
    return tags.build(name, dialect, order, _signatures(settings))


def snippet(settings: Settings, form: Mapping[str, str]) -> str:
    """The snippet for a site's conversions.

    Args:
        form: `conversion`, `campaign`, `base`.

    Raises:
        UsageError: there is no such kind of conversion.
    """
    base = _base(settings, form)
    return tags.snippet(base, form["conversion"], form.get("campaign") or None, _signatures(settings))


def checked(settings: Settings, url: str, planned: IsPlanned | None = None) -> Checked:
    """The door's verdict on a tag, now.

    Args:
        planned: whether a placement, or a campaign, is in the plans; None takes every one as planned.
    """
    if settings.collect_key is None:  # pseudonyms are shown shortened, so that any key serves
        settings = settings.model_copy(update={"collect_key": SecretStr(secrets.token_hex(16))})
    return check(understanding_of(settings, planned or _all_planned), url, time.time_ns() // 1_000_000)


def _all_planned(placement: str | None, campaign: str | None) -> bool:
    return True


def of_checked(verdict: Checked) -> dict[str, Any]:
    """A verdict as JSON."""
    findings = [finding._asdict() for finding in verdict.findings]
    return dict(verdict.trace) | {"findings": findings}


def answer(settings: Settings, door: Understanding, question: Question) -> dict[str, Any]:
    """The answer to a question about tags.

    Args:
        door: the understanding of the URL to check.

    Raises:
        UsageError: what is asked for cannot be built.
        SettingsError: no tag can be built or checked by these settings.
    """
    form = question.fields
    if any(len(value) > LONGEST_FIELD for value in form.values()):
        raise UsageError(f"a field takes {LONGEST_FIELD:,} characters at most")
    match question.kind:
        case Kind.CHECK:
            verdict = check(door, form["check"], time.time_ns() // 1_000_000)
            return of_checked(verdict) | {"good": verdict.good}
        case Kind.CONVERSION:
            return {"snippet": snippet(settings, form)}
        case Kind.CHOICES:
            return choices(settings)
        case Kind.PLACEMENT:
            return _placement(settings, form)


def _placement(settings: Settings, form: Mapping[str, str]) -> dict[str, Any]:
    built = build(settings, form)
    vast = "" if "progress" in built.urls or "postback" in built.urls else tags.as_vast(built)
    body = tags.as_body(form.get("dialect", "native"), built)
    body |= {"vast": vast, "signed": bool(settings.collect_signing_keys)}
    return body | ({"curl": curl(settings, form)} if "placement" in form else {})


def curl(settings: Settings, form: Mapping[str, str]) -> str:
    """A line for a shell that sends one impression of a placement, and shows its outcome.

    Raises:
        UsageError: the address of the doors is not set.
    """
    return tags.as_curl(_base(settings, form), _words(form), _signatures(settings), time.time())


def note(client: Client, namespace: str, form: Mapping[str, str], now_ms: int) -> None:
    """Note in Redis that a placement's tags were built, until they fire.

    Raises:
        ConnectError: Redis does not take it.
    """
    (noted,) = read_rows(client, [tags_key(namespace)])
    placement = form.get("placement")
    if placement and (placement in noted or len(noted) < MAX_NOTED):
        entry = {
            "built_ms": now_ms,
            "dialect": form.get("dialect") or "native",
            "campaign": form.get("campaign") or None,
        }
        put_fields(client, {tags_key(namespace): {placement: msgspec.json.encode(entry).decode()}})


def _words(form: Mapping[str, str]) -> dict[str, str]:
    """The ids and labels of a form, by their words."""
    return {tags.WORD_OF.get(name, name): form[name] for name in NAMES if form.get(name)}


def _signatures(settings: Settings) -> Signatures | None:
    """The signatures of tags; None without a key, for unsigned tags."""
    return signatures_of(settings) if settings.collect_signing_keys else None


def _base(settings: Settings, form: Mapping[str, str]) -> str:
    base = form.get("base") or settings.collect_url
    if not base:
        raise UsageError(
            "the collector's address is missing: set --base https://…, or AUDIOPIXEL_COLLECT_URL"
        )
    return base
