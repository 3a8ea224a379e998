"""`audiopixel archive`."""

from __future__ import annotations

from typing import Annotated

import typer

from flows.cli.app import command
from flows.errors import UsageError
from flows.shown import LINE, shown


@command
def archive(
    step: Annotated[
        str, typer.Argument(metavar="[check|parquet]", help="Without one it writes.", show_default=False)
    ] = "",
    source: Annotated[
        str, typer.Argument(metavar="DIR|URL", help="check, parquet: the archive.", show_default=False)
    ] = "",
    to: Annotated[
        str,
        typer.Option(
            metavar="DIR|s3://BUCKET/PREFIX",
            help="Place of the archive, or of the hours of parquet. A bucket may be s3://, gs:// or "
            "az://; name an S3 server other than Amazon's after a question mark: "
            "?endpoint=HOST:PORT&scheme=http.",
            show_default=False,
        ),
    ] = "",
    once: Annotated[
        bool, typer.Option("--once", help="Write all present messages, and end; for a timer.")
    ] = False,
) -> None:
    """Write each raw message of the pixel topic once to an archive, which you can keep as long as you like.

    It writes until SIGTERM or Ctrl-C. A restart continues at the end of the manifest. Run one process for
    each archive. audiopixel replay archive:DIR reads the archive.

    check reads every file, and verifies checksums, gaps, and that up to the flow's position the archive has
    as many messages as the flow's ledger. All errors are printed. Messages that the flow has read and the
    archive has not yet are counted in Kafka: an error only if they are older than half an hour, or missing.
    Exit code 0: no error. 1: at least one error. 3: the archive, Redis or Kafka cannot be read at all.

    parquet writes complete hours for a warehouse, and ends. It writes only hours that are missing there or
    have changed.
    """
    if step == "":
        if not to:
            raise UsageError("--to is missing: name the place of the archive")
        _write(to, once)
    elif step == "check":
        if not source or to:
            raise UsageError("check takes the archive, a directory or a bucket's address, and no --to")
        _check(source)
    elif step == "parquet":
        if not source or not to:
            raise UsageError("parquet takes the archive, and --to for the place of the hours")
        _parquet(source, to)
    else:
        raise UsageError(f"{shown(step)}: takes check, parquet, or nothing")


def _write(to: str, once: bool) -> None:
    from flows.archive import write
    from flows.settings import load

    write(load(), to, once)


def _parquet(source: str, to: str) -> None:
    from flows.archive import hours
    from flows.cli.progress import phases
    from flows.settings import load

    with phases("reading the manifest") as begin_phase:
        result = hours(load(), source, to, begin_phase)
    count, span = len(result.written), ""
    if count:
        span = f", {result.written[0]} to {result.written[-1]}"
    typer.echo(f"{count} hours written{span}, {result.pixels:,} pixels; {result.unchanged} were there")


def _check(source: str) -> None:
    from datetime import UTC, datetime

    from connectors.kafka import KafkaInput
    from connectors.redis import connect
    from connectors.stream import Reader
    from flows.archive import Ledgers, check, ledger_of, store_of
    from flows.cli.progress import phases
    from flows.engine import first_positions
    from flows.settings import kafka_options, load

    settings = load()
    client = connect(settings.redis_url.get_secret_value(), timeout=settings.redis_timeout)

    def open_topic(partition: str, position: int) -> Reader:
        topic = partition.rpartition("/")[0]
        return KafkaInput(settings.kafka_brokers, [topic], options=kafka_options(settings)).open(
            partition, position
        )

    with phases("reading") as begin_phase:
        first = first_positions(settings.recovery_dir) or {}
        ledgers = Ledgers(*ledger_of(client, settings.namespace), first, open_topic)
        result = check(store_of(source), ledgers, begin_phase)
    client.close()
    through = datetime.fromtimestamp(result.through_ms / 1000, UTC).isoformat(timespec="seconds")
    typer.echo(
        f"{result.topic}: {result.messages:,} messages ({result.malformed:,} malformed) in "
        f"{result.segments:,} segments of {result.partitions} partitions, "
        f"through {through.replace('+00:00', 'Z')}; {result.bytes:,} bytes of {result.raw_bytes:,}"
    )
    typer.echo(f"ledger: {result.compared} of {result.partitions} partitions compared")
    for kind, lines in (
        ("behind", result.behind),
        ("not compared", result.not_compared),
        ("error", result.wrong),
    ):
        for line in lines:
            typer.echo(f"{kind}: {shown(line, LINE)}")
    if result.wrong:
        raise typer.Exit(1)
