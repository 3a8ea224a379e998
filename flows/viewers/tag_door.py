"""The client of the collector's door for tags.

Only the collector has the keys that sign tags. A reader's token, or control over the exporter, can sign
nothing without it.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import Any, Final

import msgspec

from connectors.http_client import CallFailed, HttpClient
from flows.errors import UNREADABLE
from flows.settings import Settings

PATH: Final = "/v1/tags"
"""The path below the address of the collector's doors."""
TIMEOUT: Final = timedelta(seconds=5)
_NOT_SET: Final = (
    "The collector's door builds tags: set AUDIOPIXEL_COLLECT_URL, and AUDIOPIXEL_COLLECT_TOKEN to a token "
    "of the collector that may tag."
)
_REFUSED: Final = (
    "The collector refuses AUDIOPIXEL_COLLECT_TOKEN: set it to a token of the collector that may tag."
)
_AWAY: Final = "The collector's door at AUDIOPIXEL_COLLECT_URL does not answer now."
_ODD: Final = (
    "AUDIOPIXEL_COLLECT_URL answers {status}, unlike a collector of this version: check the address."
)


def ask(settings: Settings, fields: Mapping[str, str]) -> tuple[int, dict[str, Any]]:
    """The collector's answer to the fields of a form, and its status; waits for the collector."""
    if settings.collect_url is None or settings.collect_token is None:
        return 503, {"error": _NOT_SET}
    headers = {
        "content-type": "application/json",
        "authorization": f"Bearer {settings.collect_token.get_secret_value()}",
    }
    try:
        client = HttpClient(f"{settings.collect_url.rstrip('/')}{PATH}", TIMEOUT)
    except ValueError:
        return 503, {"error": _NOT_SET}
    try:
        answer = client.post(msgspec.json.encode(fields), headers)
    except CallFailed:
        return 503, {"error": _AWAY}
    finally:
        client.close()
    if answer.status in (401, 403):
        return 502, {"error": _REFUSED}
    if answer.status in (200, 400):
        try:
            return answer.status, msgspec.json.decode(answer.body, type=dict[str, Any])
        except UNREADABLE:
            pass
    return 502, {"error": _ODD.format(status=answer.status)}
