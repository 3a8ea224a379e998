"""`audiopixel sources`."""

from __future__ import annotations

import re
import signal
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from flows.cli.app import command, interruptible
from flows.errors import MOST_REJECTED, ManyRejectedError, UsageError
from flows.shown import LINE, print_table, shown

if TYPE_CHECKING:
    from flows.collector.call import Understood
    from flows.settings import Settings
    from flows.sources import Source
    from flows.sources.paths import Message

SAMPLE: Final = 2_000
"""The number of messages by which `run` judges the lateness of a live source."""
_KAFKA: Final = "kafka:"


@command
def sources(
    step: Annotated[str, typer.Argument(metavar="draft|check|run", help="The step.", show_default=False)],
    names: Annotated[
        list[str],
        typer.Argument(
            metavar="NAME...", help="Sources; for draft kafka:TOPIC or a file.", show_default=False
        ),
    ],
    messages: Annotated[
        int, typer.Option(min=1, max=1_000_000, metavar="N", help="check: read at most this many messages.")
    ] = 10_000,
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="draft: the source's file; run, a batch: the log.", show_default=False
        ),
    ] = None,
    registry: Annotated[
        str,
        typer.Option(
            metavar="URL", help="draft: a topic's schema registry; env:NAME if secret.", show_default=False
        ),
    ] = "",
    to: Annotated[
        str,
        typer.Option(
            metavar="kafka:TOPIC", help="run, a batch: a topic other than the pixels'.", show_default=False
        ),
    ] = "",
    shared: Annotated[
        bool, typer.Option("--shared", help="run: share the topic with other processes that have --shared.")
    ] = False,
) -> None:
    """Read topics and files of another shape as pixels. A source is a file, sources/NAME.toml, that maps
    their fields to those of a pixel.

    draft reads some messages and writes a first file: to --out sources/NAME.toml, else to the terminal. check
    sends nothing: it runs the source's examples, and shows the result of each message, and the metrics that
    the messages can give. Exit code 1: an example fails, no message is a pixel, over 1 % are rejected, or a
    live source is too late.

    run writes a live source's topic to the pixel topic until SIGTERM. A batch (files, or mode = "batch")
    ends: --out writes a log for audiopixel replay, --to writes to another topic. Exit code 3: over a tenth of
    a batch is rejected. The guide: docs/sources.md.
    """
    interruptible()
    if step == "draft":
        _draft(names, out, registry)
    elif step == "check":
        _check(names, messages)
    elif step == "run":
        _run(names, out, to, shared)
    else:
        raise UsageError(f"{shown(step)}: takes draft, check or run")


def _draft(names: list[str], out: Path | None, registry: str) -> None:
    from flows.settings import load
    from flows.sources.draft import MAX_MESSAGES, draft
    from flows.sources.messages import EncodingError, OneColumnError, sample_messages
    from flows.sources.report import MOST_REJECTED as A_FEW
    from flows.sources.source import OF_A_REGISTRY, Source

    if len(names) != 1:
        raise UsageError("draft takes one kafka:TOPIC, or one file")
    (name,) = names
    settings = load()
    origin = {"topic": name.removeprefix(_KAFKA)} if name.startswith(_KAFKA) else {"files": name}
    if registry and "files" in origin:
        raise UsageError("--registry is for topics alone: files have their own schema, or none")
    if "@" in registry:
        raise UsageError("--registry: an address with a password is a secret: name a variable, env:NAME")
    options = {"registry": {"url": registry}} if registry else {}
    for format_ in OF_A_REGISTRY if registry else _formats_of(name):
        while True:
            source = Source(name="draft", format=format_, **origin, **options)  # type: ignore[arg-type]
            try:
                messages = list(sample_messages(source, settings, MAX_MESSAGES))
            except OneColumnError as error:
                origin["separator"] = error.separator
            except EncodingError:
                origin["encoding"] = "latin-1"
            else:
                not_utf8 = sum(message.wrong == "encoding" for message in messages)
                if not_utf8 <= A_FEW * len(messages):  # a few are damage, or a sender's jest
                    break
                origin["encoding"] = "latin-1"
        if any(message.document is not None for message in messages):
            break
    else:
        framed = sum(message.wrong == "schema" for message in messages) if not registry else 0
        hint = (
            f"; {framed:,} messages begin with a schema id: give --registry" if framed else ": wait for some"
        )
        if "files" in origin:
            hint = (
                f": {messages[0].topic}:{messages[0].offset} is none"
                if messages
                else ": it is empty, or has a header alone"
            )
        raise UsageError(f"{name}: has no message that is an object or a row{hint}")
    text = draft(messages, origin, source.format, registry)
    if out is None:
        typer.echo(text)
        return
    valid_name = re.sub(r"[^a-z0-9_-]+", "-", out.stem.lower()).strip("-_")[:64]
    out = out.with_name(f"{valid_name or 'drafted'}.toml")
    if out.exists():
        raise UsageError(f"{out}: exists already, and draft overwrites no file: name another file")
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(text)
    typer.echo(f"{out} is written: look at each line, then audiopixel sources check {out.stem}")


def _formats_of(name: str) -> tuple[str, ...]:
    """The possible formats of a file, by its name, or of a topic without a registry, the likeliest first."""
    bare = name.lower().removesuffix(".gz").removesuffix(".zst").removesuffix(".bz2")
    formats_by_suffix = {".csv": ("csv",), ".parquet": ("parquet",), ".tsv": ("snowplow-enriched", "tsv")}
    return formats_by_suffix.get(Path(bare).suffix, ("json", "snowplow-enriched"))


def _check(names: list[str], most: int) -> None:
    from flows.settings import load
    from flows.sources import load_source

    settings = load()
    faults = [
        f"{name}: {fault}"
        for name in names
        for fault in _checked(load_source(settings.sources, name), settings, most)
    ]
    for fault in faults:
        typer.echo(shown(fault, LINE), err=True)
    if faults:
        raise typer.Exit(1)


def _checked(source: Source, settings: Settings, most: int) -> list[str]:
    from flows.sources import Pixels
    from flows.sources.examples import failures
    from flows.sources.messages import sample_messages
    from flows.sources.pixels import understanding_of
    from flows.sources.report import Report

    pixels = Pixels(source, understanding_of(settings), source.topic or "")
    failed = list(failures(pixels))
    report = Report(source, int(settings.allowed_lateness.total_seconds() * 1000))
    for message in sample_messages(source, settings, most):
        report.take(message, pixels.understand(message))
    typer.echo(f"{source.name}: {source.topic or source.files}")
    examples = len(source.example)
    typer.echo(f"examples: {examples - len(failed)} of {examples} pass")
    for line in report.lines():
        typer.echo(shown(line, LINE))
    if report.rejected:
        print_table(report.rejections())
    typer.echo()
    print_table(report.table())
    return [*failed, *report.faults()]


def _run(names: list[str], out: Path | None, to: str, shared: bool) -> None:
    from flows.settings import load
    from flows.sources import Pixels, load_source
    from flows.sources.examples import failures
    from flows.sources.pixels import understanding_of

    settings = load()
    sources = [load_source(settings.sources, name) for name in names]
    for source in sources:
        failed = list(failures(Pixels(source, understanding_of(settings))))
        if failed:
            raise UsageError(f"{source.name}: {'; '.join(failed)} (audiopixel sources check {source.name})")
    batches = [source for source in sources if not source.live]
    if not batches:
        if out is not None or to:
            raise UsageError("--out and --to are for batches alone: a live source writes to the pixel topic")
        _live(sources, settings, shared)
    elif len(sources) > 1:
        raise UsageError("a batch runs by itself: name one source")
    else:
        _batch(batches[0], settings, out, to)


def _live(sources: list[Source], settings: Settings, shared: bool) -> None:
    """Run live sources, a thread each, until SIGTERM or until one ends."""
    import structlog

    from flows.sources import Pixels
    from flows.sources.instruments import Instruments
    from flows.sources.live import Live, spare_memory
    from flows.sources.messages import live_reader_of, sample_messages
    from flows.sources.pixels import understanding_of
    from flows.sources.report import Report
    from flows.sources.source_rows import SourceRows

    if len({source.name for source in sources}) < len(sources):
        raise UsageError("a source is named twice: one process runs it once")
    for source in sources:
        _refuse_own_output(source, settings)
    log, ended = structlog.get_logger("source"), threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: ended.set())
    lives: list[Live] = []
    instruments = Instruments()
    instruments.serve(settings)
    for source in sources:
        understanding = understanding_of(settings)
        report = Report(source, int(settings.allowed_lateness.total_seconds() * 1000))
        sampled = Pixels(source, understanding)
        for message in sample_messages(source, settings, SAMPLE):
            report.take(message, sampled.understand(message))
        if report.late_99_ms > report.lateness_ms:
            raise UsageError(f'{source.name}: {report.faults()[-1]}: run it as a batch (mode = "batch")')
        reader = live_reader_of(source, settings, shared)
        assert source.topic is not None
        pixels = Pixels(source, understanding, reader.log_id(source.topic))
        lives.append(Live(settings, pixels, reader, instruments))
        log.info("reading", source=source.name, topic=source.topic)
    spare_memory()
    codes: list[int] = []
    errors: list[Exception] = []

    def run_live(live: Live) -> None:
        try:
            codes.append(live.run(ended.is_set))
        except Exception as error:  # the main thread raises it below
            errors.append(error)
        finally:
            ended.set()
            live.close()

    threads = [threading.Thread(target=run_live, args=(live,)) for live in lives]
    for thread in threads:
        thread.start()
    figures = SourceRows(settings, lives)
    for thread in threads:
        thread.join()
    figures.close()
    for live in lives:
        log.info("ended", source=live.id, ledger=live.ledger.line())
    if errors:
        raise errors[0]
    if any(codes):
        raise typer.Exit(max(codes))


def _refuse_own_output(source: Source, settings: Settings) -> None:
    """Refuse a live source that would read its own output for ever."""
    from flows.sources.messages import cluster_of

    brokers, _ = cluster_of(source, settings)
    shared = {*brokers.split(",")} & {*settings.kafka_brokers.split(",")}
    if shared and source.topic in (settings.kafka_topic, settings.kafka_rejected_topic):
        raise UsageError(
            f"{source.name}: {source.topic} is a topic that sources write to: name your own events' topic"
        )


def _batch(source: Source, settings: Settings, out: Path | None, to: str) -> None:
    from connectors.kafka import KafkaWriter
    from flows.cli.paths import writable
    from flows.cli.progress import progress
    from flows.settings import kafka_options
    from flows.sources.batch import in_order, pixels_of, write_file
    from flows.sources.live import Ledger
    from flows.sources.messages import remedy_of
    from flows.sources.pixels import understanding_of

    if (out is None) is (not to):
        raise UsageError("a batch takes --out FILE, for audiopixel replay, or --to kafka:TOPIC")
    if to and (not to.startswith(_KAFKA) or to == f"{_KAFKA}{settings.kafka_topic}"):
        raise UsageError(
            "--to takes kafka:TOPIC, another than the pixel topic: for a live flow a batch is too late"
        )
    writable(out)
    ledger, positions = Ledger(), dict[str, str]()

    def rejected(message: Message, understood: Understood) -> None:
        reason = f"{understood.reason} {understood.wrong}".strip()
        positions.setdefault(reason, f"{message.topic}:{message.offset}")

    lines = pixels_of(source, settings, understanding_of(settings), ledger, rejected)
    with progress(lambda: f"{ledger.read:,} messages"):
        ordered = in_order(lines, (out or settings.sources).resolve().parent)
        if out is not None:
            write_file(ordered, out)
        else:
            options = kafka_options(settings) | {"partitioner": "murmur2_random"}
            writer = KafkaWriter(settings.kafka_brokers, to.removeprefix(_KAFKA), options)
            for line in ordered:
                writer.write([(line.key, line.body)])
            writer.close()
    typer.echo(ledger.line())
    for words in ledger.unreadable.lines():
        typer.echo(shown(words, LINE))
    for reason, position in positions.items():
        typer.echo(shown(f"rejected: {reason}: first at {position}", LINE), err=True)
    rejected_count = ledger.rejected.total()
    if rejected_count > MOST_REJECTED * (ledger.pixels + rejected_count):
        reason, position = next(iter(positions.items()))
        raise ManyRejectedError(
            f"{source.name}: {rejected_count:,} of {ledger.pixels + rejected_count:,} messages are rejected: "
            f"the first at {position}: {reason}{remedy_of(reason)}"
        )
    if ledger.read and not ledger.pixels:
        raise typer.Exit(1)
