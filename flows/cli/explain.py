"""`audiopixel explain`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from flows.cli.app import command
from flows.errors import AudiopixelError
from flows.shown import shown

if TYPE_CHECKING:
    from flows.settings import Settings


@command
def explain(
    conversion: Annotated[str, typer.Argument(help="The order id or the event id of a conversion.")],
) -> None:
    """Show which touches a conversion could have been credited to, which ones it was credited to, and by
    which rule. No listener is named.

    Conversions of several campaigns or types may have the same order id: all of them are shown.
    """
    import msgspec

    from connectors.redis import connect, read_rows
    from flows.model.messages import Body
    from flows.model.redis_keys import row_key
    from flows.settings import load
    from flows.viewers.explain import show

    settings = load()
    client = connect(settings.redis_url.get_secret_value(), timeout=settings.redis_timeout)
    (row,) = read_rows(client, [row_key(settings.namespace, "conversion", conversion)])
    if not row:
        raise AudiopixelError(
            f"no decision on {shown(conversion)!r}: a conversion is decided when its minute is final, and "
            f"its decision kept for {settings.decisions_ttl.days} days (AUDIOPIXEL_DECISIONS_TTL)"
        )
    told = []
    for key, decision in sorted(row.items()):
        try:
            told.append(show(msgspec.json.decode(decision, type=Body), settings.zone))
        except (ValueError, ArithmeticError, OSError) as error:
            raise AudiopixelError(
                f"what Redis holds of {shown(conversion)!r} is no decision ({shown(key)}: {error}): delete "
                "it, or read it in the topic of the credits"
            ) from None
    for one in told:
        Console().print(one)


def _at_the_edge(settings: Settings, ids: list[str]) -> list[str]:
    """The pseudonyms that the collector makes of these ids, by each of its keys in force."""
    from flows.collector.pseudonyms import Pseudonyms

    key = settings.collect_key
    if key is None:
        return []
    previous = [one.get_secret_value().encode() for one in settings.collect_previous_keys]
    pseudonyms = Pseudonyms(key.get_secret_value().encode(), previous)
    return [made for one in ids for made in pseudonyms.of_listener(one.strip())]
