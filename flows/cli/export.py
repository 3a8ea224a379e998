"""`audiopixel export`."""

from __future__ import annotations

import re
from typing import Annotated, Literal

import typer

from flows.cli.app import command
from flows.errors import UsageError

KINDS = ("parquet", "webhook", "slack", "adcp", "ga4", "adobe")


@command
def export(
    kind: Annotated[str, typer.Argument(help=f"One of {', '.join(KINDS)}.", show_default=False)] = "",
    to: Annotated[
        str,
        typer.Option(
            metavar="DIR|s3://BUCKET/PREFIX",
            help="Of parquet: where the days go. Another S3 server than Amazon's is named behind a question "
            "mark: ?endpoint=HOST:PORT&scheme=http.",
            show_default=False,
        ),
    ] = "",
    name: Annotated[
        str,
        typer.Option(
            help="Name of this export in its consumer group, metrics and dead letters; by default its kind. "
            "Give each its own where several of a kind run.",
            show_default=False,
        ),
    ] = "",
    start: Annotated[
        str,
        typer.Option(
            "--from",
            metavar="earliest|latest",
            help="Where the first start of this name begins to read; by default earliest for parquet, latest "
            "for the others.",
            show_default=False,
        ),
    ] = "",
    once: Annotated[
        bool, typer.Option("--once", help="Hand over what is there now, and end; for a timer.")
    ] = False,
) -> None:
    """Tell other systems what is published. Each message arrives at least once, and a repeat carries the same
    key; what a target refuses for good goes to the dead letters of the exports.

    parquet writes final minutes and decisions, one folder a UTC day, once the day is complete.

    webhook calls AUDIOPIXEL_EXPORT_WEBHOOK at each change of a placement's delivery state, and of the
    methodology. Calls are signed by AUDIOPIXEL_EXPORT_WEBHOOK_SECRETS, after Standard Webhooks.

    slack writes the same to Slack, by the incoming webhook AUDIOPIXEL_EXPORT_SLACK.

    adcp tells AUDIOPIXEL_EXPORT_ADCP of the delivery of each campaign, by AdCP's delivery webhooks: every
    AUDIOPIXEL_EXPORT_ADCP_EVERY, and when a flight is final. Calls are signed as webhook's are.

    ga4 and adobe send starts, completes and attributed conversions to Google Analytics 4 and Adobe Analytics:
    of consented pixels alone, to Google those with a ga_client_id.

    It keeps its place as a consumer group and goes on there after a restart. Run one process of a name.
    SIGTERM or Ctrl-C end it with 0.
    """
    from flows import exports as told
    from flows.cli.owners import owners_of
    from flows.settings import load, nearest

    if kind not in KINDS:
        what = "there is no such export" if kind else "export needs a kind"
        raise UsageError(f"{what}{nearest(kind, KINDS)}; take one of {', '.join(KINDS)}")
    if (kind == "parquet") != bool(to):
        raise UsageError("--to names where days go: parquet needs it, the others have none")
    if re.fullmatch("[A-Za-z0-9_-]{0,64}", name) is None:
        raise UsageError("--name takes up to 64 letters, digits, _ and -")
    begin = _start(start or ("earliest" if kind == "parquet" else "latest"))
    exports = told.Exports(load(), name or kind, once, begin)
    match kind:
        case "parquet":
            told.export_parquet(exports, to)
        case "webhook":
            told.export_webhook(exports)
        case "slack":
            told.export_slack(exports)
        case "adcp":
            told.export_adcp(exports, owners_of(exports.settings))
        case "ga4":
            told.export_ga4(exports)
        case "adobe":
            told.export_adobe(exports)


def _start(word: str) -> Literal["earliest", "latest"]:
    if word == "earliest":
        return "earliest"
    if word == "latest":
        return "latest"
    raise UsageError("--from takes earliest or latest")
