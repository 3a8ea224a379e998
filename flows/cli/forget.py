"""`audiopixel forget`."""

from __future__ import annotations

import re
import sys
from typing import Annotated

import typer

from flows.cli.app import command
from flows.cli.explain import at_the_edge
from flows.errors import SettingsError, UsageError
from flows.shown import is_terminal, shown


@command
def forget(
    listener_ids: Annotated[
        list[str] | None,
        typer.Argument(
            help="Ids or addresses, as callers had them. Without any, one a line from standard input."
        ),
    ] = None,
    user_agent: Annotated[
        str,
        typer.Option(help="Of the devices at these addresses: their clients too.", show_default=False),
    ] = "",
    household: Annotated[
        list[str] | None,
        typer.Option(help="A household's pseudonym, as its pixels have it.", show_default=False),
    ] = None,
) -> None:
    """Erase listeners and households. Within a minute the flow drops their touches, and takes no more from
    their pixels.

    With AUDIOPIXEL_COLLECT_KEY set, it also finds them by the collector's pseudonyms: of an
    id, of an address, of an address with a user agent, by each key in force. An address may have been an id,
    too: both are forgotten. Without that key no address is taken, and ids are forgotten only as they
    are given. With --household and no id, standard input is not read.

    Redis keeps keyed hashes of them, never the ids, so that a restart does not bring them back. Counts stay.
    So do the keyed hashes and sketches of reach, from which no id can be had without the listeners' key.
    Messages of the topic expire by your retention.
    """
    from flows.intake import deny
    from flows.settings import load

    homes = household or []
    if not all(one.strip() for one in homes):
        raise UsageError("a household is named by no letter: give its pseudonym")
    if not listener_ids and not homes and is_terminal(sys.stdin):
        typer.echo("Ids of listeners, one a line, then Ctrl-D:", err=True)
    ids = [one for one in listener_ids or ([] if homes else _lines()) if one.strip()]
    if not ids and not homes:
        raise UsageError("no listener is named: give ids, or one a line on standard input")
    settings = load()
    if settings.collect_key is None:
        _refuse_addresses(ids)
    named = _to_the_blank(ids)
    made = [one for known in named for one in at_the_edge(settings, known, user_agent)]
    listeners = [pseudonym for field, pseudonym in made if field != "household_id"]
    at_home = [pseudonym for field, pseudonym in made if field == "household_id"]
    deny(settings, [*named, *listeners], [*_to_the_blank(homes), *at_home])
    if ids and settings.collect_key is None:
        typer.echo(
            "audiopixel: AUDIOPIXEL_COLLECT_KEY is not set: ids are forgotten as they are given, and not by "
            "the pseudonyms that a collector makes of them",
            err=True,
        )
    who = " and ".join(
        f"{len(some)} {what}" for some, what in ((ids, "listeners"), (homes, "households")) if some
    )
    typer.echo(f"{who} will be forgotten within a minute")


def _refuse_addresses(ids: list[str]) -> None:
    """Do nothing if no id is an address.

    Raises:
        SettingsError: one is an address, whose household has a name by the key alone.
    """
    from flows.collector.callers import parsed

    addresses = [known for known in ids if parsed(known) is not None]
    if addresses:
        raise SettingsError(
            f"{shown(addresses[0])!r} is an address, and AUDIOPIXEL_COLLECT_KEY is not set, without which it "
            "finds nobody. Nobody is forgotten: set it as the collectors have it"
        )


def _to_the_blank(ids: list[str]) -> list[str]:
    """Ids as they are given, and without the blanks around them: the flow takes none off an id, and whoever
    copied one may have added some.
    """
    return list(dict.fromkeys(one for known in ids for one in (known, known.strip())))


def _lines() -> list[str]:
    """The lines of standard input, without the mark that some programs write before them.

    Raises:
        UsageError: they are not UTF-8.
    """
    if sys.stdin is None:  # who called us has closed it
        return []
    try:
        # Not `splitlines`: it knows breaks that an id may hold, such as U+2028.
        return re.split("\r\n|\r|\n", sys.stdin.buffer.read().decode("utf-8-sig"))
    except UnicodeDecodeError:
        raise UsageError("standard input is not UTF-8, and nobody is forgotten: save it as such") from None
