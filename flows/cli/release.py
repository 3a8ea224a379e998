"""`audiopixel release`."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Final

import typer

from flows.cli.app import command
from flows.errors import AudiopixelError, UsageError
from flows.shown import shown

if TYPE_CHECKING:
    from flows.settings import Settings

MAX_LISTED: Final = 20


@command
def release(
    collector: Annotated[
        str,
        typer.Argument(
            help="Its id, as alerts and the file `id` of its spool show it; or a silent unit of the feed, "
            "such as `platform:NAME`."
        ),
    ],
    anyway: Annotated[
        bool, typer.Option("--anyway", help="Also if Redis does not list the id, or does not answer.")
    ] = False,
) -> None:
    """Declare that a collector has gone for good, so that the flow stops waiting for its pixels. Use it if a
    collector will not return with its spool. The command also stops alerts on a silent unit of the feed.

    An id that Redis does not list is refused, with exit code 1 and the listed ids: collectors that wrote
    figures within a day, the collector that holds the flow's time, and silent units of the feed.
    """
    import asyncio

    from flows.collector.release import release as write_byes
    from flows.settings import load

    collector = collector.removeprefix("sender:")
    if not collector or len(collector) > 128:
        raise UsageError("the id of a collector has 1 to 128 letters")
    settings = load()
    if not anyway:
        _refuse_unlisted(settings, collector)
    partitions = asyncio.run(write_byes(settings, collector))
    typer.echo(f"{shown(collector)} ended in {partitions} partitions")


def _refuse_unlisted(settings: Settings, collector: str) -> None:
    """Refuse a collector that Redis does not list.

    Raises:
        AudiopixelError: Redis does not list the collector.
        ConnectError: Redis does not serve.
    """
    from connectors.redis import connect, read_rows
    from flows.model.redis_keys import collectors_key

    client = connect(settings.redis_url.get_secret_value(), timeout=settings.redis_timeout)
    meta_key = f"{settings.namespace}:meta"
    listed, meta = read_rows(client, [collectors_key(settings.namespace), meta_key])
    client.close()
    ages_s = {name: _age_s(written_ms) for name, written_ms in listed.items()}
    state_of = {name: f"wrote {ages_s[name]:,} s ago" for name in sorted(ages_s, key=ages_s.__getitem__)}
    if holder := meta.get("held_by"):
        state_of[holder] = "; ".join([*filter(None, [state_of.get(holder)]), "holds the flow's time"])
    for unit in _silent(meta):
        state_of.setdefault(unit.removeprefix("sender:"), "silent")
    if collector in state_of:
        return
    names = [f"{shown(name)} ({state})" for name, state in list(state_of.items())[:MAX_LISTED]]
    unlisted = f", and {len(state_of) - MAX_LISTED} more" if len(state_of) > MAX_LISTED else ""
    listed_text = f"listed are {', '.join(names)}{unlisted}" if names else "it lists none"
    raise AudiopixelError(
        f"Redis ({settings.namespace}) lists no collector {shown(collector)!r}, and nothing is released: "
        f"{listed_text}. --anyway releases an id that is not listed"
    )


def _age_s(written_ms: str) -> int:
    return max(0, int(time.time()) - (int(written_ms) // 1000 if written_ms.isdigit() else 0))


def _silent(meta: Mapping[str, str]) -> list[str]:
    """The keys of the silent units of the feed."""
    import json

    try:
        units = json.loads(meta.get("silent", "{}"))
    except ValueError:  # not a flow's value
        return []
    return [*units] if isinstance(units, dict) else []
