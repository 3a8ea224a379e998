"""`audiopixel explain`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from flows.cli.app import command
from flows.errors import UNREADABLE, AudiopixelError, SettingsError, UsageError
from flows.shown import print_table, shown

if TYPE_CHECKING:
    from flows.collector.pseudonyms import Pseudonyms
    from flows.settings import Settings


@command
def explain(
    conversion: Annotated[
        str, typer.Argument(help="The order id or the event id of a conversion.", show_default=False)
    ] = "",
    listener: Annotated[
        str, typer.Option(help="Instead: an id or an address, as callers send it.", show_default=False)
    ] = "",
    user_agent: Annotated[
        str, typer.Option(help="The user agent of the device at that address.", show_default=False)
    ] = "",
) -> None:
    """Show the touches that could have got credit for a conversion, those that got it, and the rule. No
    listener is named.

    Conversions of several campaigns or types may have the same order id: all of them are shown.

    With --listener, show the pseudonyms under which the topic has a person, for each key in
    AUDIOPIXEL_COLLECT_KEY and AUDIOPIXEL_COLLECT_PREVIOUS_KEYS. An address may also have been an id: both are
    shown.
    """
    import msgspec

    from connectors.redis import connect, read_rows
    from flows.model.decisions import Body
    from flows.model.redis_keys import row_key
    from flows.settings import load
    from flows.viewers.explain import show

    settings = load()
    if bool(conversion) == bool(listener):
        raise UsageError("name a conversion, or a listener (--listener)")
    if listener:
        _show_pseudonyms(settings, listener, user_agent)
        return
    client = connect(settings.redis_url.get_secret_value(), timeout=settings.redis_timeout)
    (row,) = read_rows(client, [row_key(settings.namespace, "conversion", conversion)])
    if not row:
        raise AudiopixelError(
            f"no decision on {shown(conversion)!r}: a conversion is decided when its minute is final, and "
            f"its decision kept for {settings.decisions_ttl.days} days (AUDIOPIXEL_DECISIONS_TTL)"
        )
    tables = []
    for key, decision in sorted(row.items()):
        try:
            tables.append(show(msgspec.json.decode(decision, type=Body), settings.zone))
        except (*UNREADABLE, ValueError, ArithmeticError, OSError) as error:
            raise AudiopixelError(
                f"Redis holds no readable decision on {shown(conversion)!r} ({shown(key)}: {error}): delete "
                "it, or read it in the topic of the credits"
            ) from None
    for table in tables:
        print_table(table)


def edge_pseudonyms(settings: Settings, person: str, user_agent: str = "") -> list[tuple[str, str]]:
    """The pseudonyms that the collector makes of an id or an address, by each of its keys in force, as
    (field, pseudonym); empty if it has no key.
    """
    pseudonyms = _pseudonyms(settings)
    return [] if pseudonyms is None else pseudonyms.of_person(person, user_agent)


def edge_keys(settings: Settings) -> list[str]:
    """The ids of the collector's keys in force, with which pseudonyms begin; empty if it has no key."""
    pseudonyms = _pseudonyms(settings)
    return [] if pseudonyms is None else pseudonyms.key_ids


def _pseudonyms(settings: Settings) -> Pseudonyms | None:
    from flows.collector.pseudonyms import Pseudonyms

    key = settings.collect_key
    if key is None:
        return None
    previous_keys = [previous.get_secret_value().encode() for previous in settings.collect_previous_keys]
    return Pseudonyms(key.get_secret_value().encode(), previous_keys)


def _show_pseudonyms(settings: Settings, person: str, user_agent: str) -> None:
    """Print the pseudonyms of a listener in the topic, and whether each is on the deny-list."""
    from connectors.redis import connect, read_rows
    from flows.model.redis_keys import deny_key
    from flows.state.people import People

    if settings.collect_key is None:
        raise SettingsError(
            "AUDIOPIXEL_COLLECT_KEY is not set: set it to the key of the collectors, which makes pseudonyms"
        )
    pseudonyms = edge_pseudonyms(settings, person.strip(), user_agent)
    if not pseudonyms:
        raise AudiopixelError("the collector accepts no such id, so it has no pseudonym")
    client = connect(settings.redis_url.get_secret_value(), timeout=settings.redis_timeout)
    (forgotten,) = read_rows(client, [deny_key(settings.namespace)])
    hashed = People(settings.secret_listener_key(of_the_flow=True))
    for field, pseudonym in pseudonyms:
        key_of = hashed.household if field == "household_id" else hashed.listener
        state = "forgotten" if f"{key_of(pseudonym.encode()):016x}" in forgotten else "not forgotten"
        typer.echo(f"{field} {pseudonym} {state}")
