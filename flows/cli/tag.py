"""`audiopixel tag`."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import timedelta
from typing import TYPE_CHECKING, Annotated, Final

import typer

from flows.cli.app import command
from flows.shown import LINE, shown

if TYPE_CHECKING:
    from flows.settings import Settings

_REDIS_TIMEOUT: Final = timedelta(seconds=1)
"""Time limit of the note in Redis that tags were built: the tags themselves are more urgent."""
_OF_OUTPUT: Final = ("vast", "curl", "as_json", "check")
"""Options about the output; the others are passed to the builder."""


@command
def tag(
    dialect: Annotated[str, typer.Option(help="The vendor; `list` names all.")] = "native",
    placement: Annotated[
        str, typer.Option(help="The placement's id, which is the row's.", show_default=False)
    ] = "",
    campaign: Annotated[str, typer.Option(help="The campaign's id.", show_default=False)] = "",
    creative: Annotated[str, typer.Option(help="The creative's id.", show_default=False)] = "",
    platform: Annotated[str, typer.Option(help="A label of the row.", show_default=False)] = "",
    station: Annotated[str, typer.Option(help="A label of the row.", show_default=False)] = "",
    podcast: Annotated[str, typer.Option(help="A label of the row.", show_default=False)] = "",
    program: Annotated[str, typer.Option(help="A label of the row.", show_default=False)] = "",
    events: Annotated[
        str, typer.Option(help="By comma: start,complete; the usual events by default.", show_default=False)
    ] = "",
    click: Annotated[
        str, typer.Option(metavar="URL", help="Also a click that leads to this URL.", show_default=False)
    ] = "",
    conversion: Annotated[
        str,
        typer.Option(metavar="KIND", help="A snippet for a site: purchase, sign_up, …", show_default=False),
    ] = "",
    base: Annotated[
        str, typer.Option(help="The collector; AUDIOPIXEL_COLLECT_URL by default.", show_default=False)
    ] = "",
    vast: Annotated[bool, typer.Option("--vast", help="As parts of a VAST document.")] = False,
    curl: Annotated[
        bool, typer.Option("--curl", help="As a shell line that sends one impression and shows its verdict.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="As JSON.")] = False,
    check: Annotated[
        str,
        typer.Option(
            metavar="URL", help="Show the pixel that the collector makes of a tag.", show_default=False
        ),
    ] = "",
) -> None:
    """Build a vendor's signed tags for a placement, one URL for each event; or check an existing tag.

    Facts that the vendor cannot send are printed on standard error. --check exits with 1 if the tag needs a
    change.
    """
    request = {name: value for name, value in locals().items() if name not in _OF_OUTPUT}
    from flows.collector import tag_answers as answers
    from flows.collector import tags
    from flows.settings import load

    settings = load()
    if check:
        _check(settings, check, as_json)
        return
    if dialect == "list":
        dialects = answers.choices(settings)["dialects"]
        typer.echo(", ".join(f"{choice['name']} ({choice['known_how']})" for choice in dialects))
        return
    if conversion:
        typer.echo(answers.snippet(settings, request))
        return
    if curl:
        typer.echo(answers.curl(settings, request))
        return
    built = answers.build(settings, request)
    warnings = [*built.warnings, *_note_built(settings, request)]
    if as_json:
        typer.echo(json.dumps(tags.as_body(dialect, built) | {"warnings": warnings}, indent=2))
        return
    typer.echo(tags.as_vast(built) if vast else "\n".join(built.urls.values()))
    for warning in warnings:
        typer.echo(f"warning: {warning}", err=True)


def _note_built(settings: Settings, request: Mapping[str, str]) -> list[str]:
    """Note in Redis that these tags were built. If Redis does not answer, return a warning that nothing will
    report them if they never fire.
    """
    import time

    from connectors.redis import connect
    from connectors.stream import ConnectError
    from flows.collector.tag_answers import note

    if not settings.collect_signing_keys or not request["placement"]:
        return []
    try:
        client = connect(settings.redis_url.get_secret_value(), timeout=_REDIS_TIMEOUT)
        note(client, settings.namespace, request, time.time_ns() // 1_000_000)
    except ConnectError:
        return ["these tags could not be noted in Redis: nothing will report them if they never fire"]
    return []


def _check(settings: Settings, url: str, as_json: bool) -> None:
    from flows.collector import tag_answers as answers
    from flows.collector.checker import in_words
    from flows.collector.planned import Planned
    from flows.delivery import read_book

    planned = None
    if settings.collect_placements == "planned" and settings.plans is not None:
        book = read_book(settings)
        planned = Planned(lambda: [(name, plan.campaign_id) for name, plan in book.items()])
        planned.refresh()
    checked_tag = answers.checked(settings, url, planned)
    if as_json:
        typer.echo(json.dumps(answers.of_checked(checked_tag), indent=2))
    else:
        typer.echo("\n".join(shown(line, LINE) for line in in_words(checked_tag).splitlines()))
    if not checked_tag.good:
        raise typer.Exit(1)
