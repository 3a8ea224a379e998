"""Commands for whoever places tags."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated

import typer

from flows.cli.app import command
from flows.errors import UsageError
from flows.shown import LINE, shown

if TYPE_CHECKING:
    from flows.settings import Settings


@command
def tag(
    dialect: Annotated[str, typer.Option(help="The vendor; `list` names those known.")] = "native",
    placement: Annotated[str, typer.Option(help="Where the ad runs: the row's id.", show_default=False)] = "",
    campaign: Annotated[str, typer.Option(help="The campaign's id.", show_default=False)] = "",
    creative: Annotated[str, typer.Option(help="The creative's id.", show_default=False)] = "",
    platform: Annotated[str, typer.Option(help="A label of the row.", show_default=False)] = "",
    station: Annotated[str, typer.Option(help="A label of the row.", show_default=False)] = "",
    podcast: Annotated[str, typer.Option(help="A label of the row.", show_default=False)] = "",
    program: Annotated[str, typer.Option(help="A label of the row.", show_default=False)] = "",
    events: Annotated[
        str, typer.Option(help="By comma: start,complete; the usual ones by default.", show_default=False)
    ] = "",
    click: Annotated[
        str, typer.Option(metavar="URL", help="Also a click that leads there.", show_default=False)
    ] = "",
    conversion: Annotated[
        str,
        typer.Option(metavar="KIND", help="A snippet for a site: purchase, sign_up, …", show_default=False),
    ] = "",
    base: Annotated[
        str, typer.Option(help="The doors; AUDIOPIXEL_COLLECT_URL by default.", show_default=False)
    ] = "",
    vast: Annotated[bool, typer.Option("--vast", help="As parts of a VAST document.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="As JSON.")] = False,
    check: Annotated[
        str, typer.Option(metavar="URL", help="Say what the door would make of a tag.", show_default=False)
    ] = "",
) -> None:
    """Build a vendor's tags for a placement, signed, one URL an event; or check one that is there.

    What the vendor cannot tell is said on standard error. --check ends with 1 where the tag must be mended.
    """
    from flows.collector import tags
    from flows.collector.dialects import load_dialects
    from flows.collector.serve import signatures_of
    from flows.settings import load

    settings = load()
    if check:
        _check(settings, check, as_json)
        return
    dialects = load_dialects(settings.collect_dialects)
    if dialect not in dialects:
        known = ", ".join(f"{name} ({one.status})" for name, one in sorted(dialects.items()))
        if dialect == "list":
            typer.echo(known)
            return
        raise UsageError(f"{shown(dialect)!r} is no dialect: {known}")
    signatures = signatures_of(settings) if settings.collect_signing_keys else None
    address = base or settings.collect_url
    if not address:
        raise UsageError("say where the doors are: --base https://…, or AUDIOPIXEL_COLLECT_URL")
    if conversion:
        typer.echo(tags.snippet(address, conversion, campaign or None, signatures))
        return
    said = {
        "placement_id": placement,
        "campaign_id": campaign,
        "creative_id": creative,
        "platform": platform,
        "station": station,
        "podcast": podcast,
        "program": program,
    }
    wanted = tuple(name.strip() for name in events.split(",") if name.strip())
    if click:
        wanted = (*(wanted or tags.USUAL), "click")
    words = {word: value for word, value in said.items() if value}
    order = tags.Order(address, words, wanted, click, settings.collect_vendor)
    built = tags.build(dialect, dialects[dialect], order, signatures)
    if as_json:
        typer.echo(tags.as_json(dialect, built))
        return
    typer.echo(tags.as_vast(built.urls) if vast else "\n".join(built.urls.values()))
    for warning in built.warnings:
        typer.echo(f"warning: {warning}", err=True)


def _check(settings: Settings, url: str, as_json: bool) -> None:
    import secrets
    import time

    from pydantic import SecretStr

    from flows.collector.checker import check, in_words
    from flows.collector.serve import understanding_of

    if settings.collect_key is None:  # pseudonyms are shown shortened, so that any key serves
        settings = settings.model_copy(update={"collect_key": SecretStr(secrets.token_hex(16))})
    checked = check(understanding_of(settings), url, time.time_ns() // 1_000_000)
    if as_json:
        findings = [{"level": one.level, "words": one.words} for one in checked.findings]
        typer.echo(json.dumps(dict(checked.trace) | {"findings": findings}, indent=2))
    else:
        typer.echo("\n".join(shown(line, LINE) for line in in_words(checked).splitlines()))
    if not checked.good:
        raise typer.Exit(1)
