"""`audiopixel forget`."""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from connectors.stream import ConnectError
from flows.cli.app import command
from flows.cli.explain import edge_keys, edge_pseudonyms
from flows.cli.paths import writable
from flows.errors import AudiopixelError, SettingsError, UsageError
from flows.shown import is_terminal, shown

if TYPE_CHECKING:
    from connectors.redis import Client
    from flows.erasures import Case, Erasure
    from flows.settings import Settings

WAIT_S: Final = 60.0
"""The time for which the command waits, in s. The flow reads the list every second; a minute allows for
delays.
"""


@command
def forget(
    listener_ids: Annotated[
        list[str] | None,
        typer.Argument(
            help="Ids or addresses, as callers had them. Without any, one a line from standard input. With "
            "--status also receipts."
        ),
    ] = None,
    user_agent: Annotated[
        str,
        typer.Option(
            help="User agent of the devices at these addresses: also erases their clients.",
            show_default=False,
        ),
    ] = "",
    household: Annotated[
        list[str] | None,
        typer.Option(help="A household's pseudonym, as its pixels have it.", show_default=False),
    ] = None,
    receipt: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Also write a receipt, as JSON, here.", show_default=False),
    ] = None,
    status: Annotated[
        bool, typer.Option("--status", help="Show whether an erasure is done, without a new one.")
    ] = False,
    wait: Annotated[
        float, typer.Option(metavar="SECONDS", min=0, help="Time to wait until the flow confirms.")
    ] = WAIT_S,
) -> None:
    """Erase listeners and households. Within a minute the flow drops their touches, and stores no more
    touches from their pixels. The command waits until the flow confirms this.

    It prints done, pending or refused. Exit code 0: done. 1: pending, for example while no flow is alive or a
    key of the collectors is missing; or refused, for example with another key than the flow's, which would
    find no listener.

    With AUDIOPIXEL_COLLECT_KEY set, it also finds them by the collector's pseudonyms: of an id, of an
    address, and of an address with a user agent, for each key in force. An address may also have been an id:
    both are forgotten. Without that key it takes no address, and forgets only the ids themselves. With
    --household and no id, standard input is not read.

    A receipt has the time, the shortened pseudonyms, and the data that the flow held, with the positions at
    which it was dropped. It also has the data that remains, with its end. --status FILE asks again by a
    receipt, without a key.

    Redis stores keyed hashes of the erased ids, never the ids, so that a restart does not count them again.
    Counts stay. The keyed hashes and sketches of reach also stay; no id can be derived from them without the
    listeners' key. Messages of the topic expire by your retention.
    """
    from connectors.redis import connect
    from flows.erasures import flow_of
    from flows.intake import put_on_the_list
    from flows.settings import load

    writable(receipt)
    households, given_ids = household or [], listener_ids or []
    if not all(map(str.strip, households)):
        raise UsageError("--household is empty: give the household's pseudonym")
    receipts = [path for path in given_ids if status and Path(path).is_file()]
    if not given_ids and not households and is_terminal(sys.stdin):
        typer.echo("Ids of listeners, one a line, then Ctrl-D:", err=True)
    ids = [
        listener
        for listener in given_ids or ([] if households else _lines())
        if listener.strip() and listener not in receipts
    ]
    settings = load()
    cases = [_case_of_receipt(settings, Path(path)) for path in receipts]
    if ids or households:
        cases.append(_case_of_people(settings, ids, households, user_agent))
    if not cases:
        raise UsageError("no listener is named: give ids, or one id a line on standard input")
    if receipt is not None and len(cases) > 1:
        raise UsageError("--receipt holds one erasure: name one receipt, or ids alone")
    client = connect(settings.redis_url.get_secret_value(), timeout=settings.redis_timeout)
    all_done = True
    for case in cases:
        erasures: list[Erasure] = []
        if not (reasons := [*filter(None, [case.refusal(flow_of(client, settings.namespace))])]):
            if not status:
                put_on_the_list(client, settings.namespace, [int(named.key, 16) for named in case.names])
            erasures, reasons = case.wait(client, 0.0 if status else wait)
        _write(receipt, case, client, erasures, reasons)
        all_done &= _print_state(case, erasures, reasons, receipt)
    if not all_done:
        raise typer.Exit(1)


def _case_of_people(
    settings: Settings, ids: Sequence[str], households: Sequence[str], user_agent: str
) -> Case:
    """The case of people, by the ids that callers use for them.

    Raises:
        SettingsError: a key is missing.
    """
    from flows.collector.pseudonyms import HOUSEHOLD, LISTENER, shortened
    from flows.erasures import OWN_ID, Case, PersonName
    from flows.model.redis_keys import erased_field
    from flows.state.keys import fingerprint
    from flows.state.people import People

    secret = settings.secret_listener_key(of_the_flow=True)
    if settings.collect_key is None:
        _refuse_addresses(ids)
    person_ids, people = _with_stripped(ids), People(secret)
    edge_names = [name for person in person_ids for name in edge_pseudonyms(settings, person, user_agent)]
    names = [
        *((LISTENER, OWN_ID, person) for person in person_ids),
        *((HOUSEHOLD, OWN_ID, pseudonym) for pseudonym in _with_stripped(households)),
        *((kind, shortened(pseudonym), pseudonym) for kind, pseudonym in edge_names),
    ]
    key_of = {HOUSEHOLD: people.household}
    keyed = [
        PersonName(kind, shown_name, erased_field(key_of.get(kind, people.listener)(pseudonym.encode())))
        for kind, shown_name, pseudonym in names
    ]
    by_edge = edge_keys(settings) if ids else None
    return Case(settings, fingerprint(secret), by_edge, keyed, len(ids), len(households))


def _case_of_receipt(settings: Settings, path: Path) -> Case:
    """The case of a receipt.

    Raises:
        AudiopixelError: the file is no receipt.
    """
    from flows.erasures import Case

    try:
        return Case.of_receipt(settings, path.read_bytes())
    except AudiopixelError as error:
        raise AudiopixelError(f"{path}: {error}") from None


def _write(
    path: Path | None, case: Case, client: Client, erasures: Sequence[Erasure], reasons: Sequence[str]
) -> None:
    """Write a receipt, if one is asked for."""
    if path is None:
        return
    import msgspec

    from connectors.kafka import retention
    from flows.settings import kafka_options

    keeps: timedelta | None = None
    with suppress(ConnectError):  # the receipt then shows it as unknown
        settings = case.settings
        keeps = retention(settings.kafka_brokers, settings.kafka_topic, kafka_options(settings))
    text = msgspec.json.encode(case.receipt(client, erasures, reasons, keeps))
    path.write_bytes(msgspec.json.format(text, indent=2) + b"\n")


def _print_state(
    case: Case, erasures: Sequence[Erasure], reasons: Sequence[str], receipt: Path | None
) -> bool:
    """Print the state of a case. Returns whether it is done."""
    from flows.erasures import state_of, state_words

    state = state_of(erasures, reasons)
    if state == "done":
        typer.echo(f"done: {case.people} forgotten; {state_words(erasures)}")
        if receipt is None:
            typer.echo("Not reached: the topic, reach, exports. --receipt FILE lists each, with its end")
    else:
        typer.echo(f"{state}: {case.people} not forgotten{' everywhere' if state == 'pending' else ''}")
    for reason in reasons:
        typer.echo(f"audiopixel: {reason}", err=True)
    return state == "done"


def _refuse_addresses(ids: Sequence[str]) -> None:
    """Refuse addresses, whose listeners have names only by the collectors' key.

    Raises:
        SettingsError: an id is an address.
    """
    from flows.collector.callers import parsed

    addresses = [known for known in ids if parsed(known) is not None]
    if addresses:
        raise SettingsError(
            f"{shown(addresses[0])!r} is an address, and AUDIOPIXEL_COLLECT_KEY is not set: without that key "
            "an address has no listener. Nothing is forgotten: set it to the collectors' key"
        )


def _with_stripped(ids: Sequence[str]) -> list[str]:
    """Ids as typed, and without the blanks around them. The flow strips no id, and a person who copied an id
    may have added blanks.
    """
    return list(dict.fromkeys(spelling for typed in ids for spelling in (typed, typed.strip())))


def _lines() -> list[str]:
    """The lines of standard input, without a byte order mark.

    Raises:
        UsageError: they are not UTF-8.
    """
    if sys.stdin is None:  # the caller has closed it
        return []
    try:
        # Not `splitlines`: it breaks at characters that an id may hold, such as U+2028.
        return re.split("\r\n|\r|\n", sys.stdin.buffer.read().decode("utf-8-sig"))
    except UnicodeDecodeError:
        raise UsageError("standard input is not UTF-8, and nothing is forgotten: save it as UTF-8") from None
