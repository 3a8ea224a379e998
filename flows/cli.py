"""The command line: `audiopixel --help`."""

from __future__ import annotations

import json
import secrets
import signal
import sys
import threading
from collections.abc import Callable
from datetime import timedelta
from functools import wraps
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from connectors.stream import ConnectError
from flows import logs
from flows.errors import AudiopixelError, UsageError

app = typer.Typer(
    name="audiopixel",
    help="Live, exact, reconcilable numbers from audio-ad pixels.\n\nStart with [bold]audiopixel "
    "demo[/bold]: it needs nothing installed. "
    "Settings come from AUDIOPIXEL_… variables and audiopixel.toml; [bold]audiopixel config[/bold] shows "
    "what is in force. A duration is written PT10M, 00:10:00, or in seconds.",
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    add_completion=False,
)

FILES = Annotated[
    list[str],
    typer.Argument(help="NDJSON logs, plain, .gz or .zst; each is one source partition.", show_default=False),
]


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"audiopixel {version('audiopixel')}")
        raise typer.Exit


@app.callback()
def _options(
    show_version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    pass


def _command(function: Callable[..., None]) -> Callable[..., None]:
    """One line for what a person can act on, and an exit code that scripts can trust."""

    @wraps(function)
    def guarded(*args: Any, **kwargs: Any) -> None:
        logs.configure()
        try:
            function(*args, **kwargs)
        except (AudiopixelError, ConnectError) as error:
            from flows.remedies import remedied

            typer.echo(f"audiopixel: {remedied(error)}", err=True)
            raise typer.Exit(getattr(error, "exit_code", 1)) from None
        except KeyboardInterrupt:
            raise typer.Exit(130) from None

    return app.command()(guarded)


@_command
def run(
    processes: Annotated[
        int,
        typer.Option(
            min=1, help="Processes on this machine; they share the work by source partition and by shard."
        ),
    ] = 1,
    recompute: Annotated[
        bool,
        typer.Option(
            help="Begin a new generation in Redis: for a log that is deliberately counted from scratch."
        ),
    ] = False,
    restarts: Annotated[
        int | None,
        typer.Option(
            min=0,
            help="Start again after a crash, so often at most; without it, a crash ends the command.",
            show_default=False,
        ),
    ] = None,
    member: Annotated[
        int | None,
        typer.Option(
            min=0,
            help="Of several machines: the place of this one in --addresses, from 0.",
            show_default=False,
        ),
    ] = None,
    addresses: Annotated[
        str,
        typer.Option(
            metavar="HOST:PORT;HOST:PORT",
            help="Of several machines: where each listens to the others, the same list on all.",
            show_default=False,
        ),
    ] = "",
    supervised: Annotated[bool, typer.Option(hidden=True)] = False,
) -> None:
    """Run the flow on the configured Kafka and Redis, until SIGTERM or Ctrl-C, which drain, flush, snapshot
    and exit 0.

    On several machines, with one recovery directory that all of them share, on each with its own number:
    audiopixel run --member 0 --addresses 'HOST:PORT;HOST:PORT'
    """
    from flows.cluster import Cluster, end_with_supervisor, members
    from flows.engine import execute
    from flows.outputs import check
    from flows.pixels import live
    from flows.settings import load
    from flows.waiting import Waiting

    if (member is None) != (not addresses):
        raise UsageError("--member and --addresses go together: this machine's place, and the list of all")
    if member is not None and (processes > 1 or restarts is not None):
        raise UsageError(
            "--processes and --restarts are for one machine: with --member each process is in --addresses, "
            "and what starts it again is this machine's supervisor"
        )
    settings = load()
    if member is None and (processes > 1 or restarts is not None):
        check(settings, recompute)
        Cluster(processes, ["--recompute"] if recompute else [], restarts or 0).run()
        return
    if supervised:
        end_with_supervisor()
    places = None if member is None else members(member, addresses)
    check(settings, recompute)
    waiting = Waiting() if member is not None and not supervised else None
    execute(
        live(settings, recompute, member or 0, waiting.over if waiting else lambda: None),
        recovery_dir=settings.recovery_dir,
        epoch_interval=settings.epoch_interval,
        addresses=places,
        process=member or 0,
    )


@_command
def replay(
    files: FILES,
    out: Annotated[
        Path | None,
        typer.Option(help="Also write minutes.ndjson and rejected.ndjson here.", show_default=False),
    ] = None,
    workers: Annotated[int, typer.Option(min=1, help="Threads; the numbers do not depend on it.")] = 1,
    recompute: Annotated[
        bool, typer.Option(help="Begin a new generation in a Redis that holds another log's numbers.")
    ] = False,
    recovery: Annotated[
        Path | None, typer.Option(help="Snapshot here, to go on after an interruption.", show_default=False)
    ] = None,
) -> None:
    """Run the same flow over log files into the configured Redis; ends when they end, with every window
    final.
    """
    from flows.metrics import instruments
    from flows.progress import progress
    from flows.replay import closing_line
    from flows.replay import replay as run_replay
    from flows.settings import load, ms
    from flows.source import Stop

    settings = load()
    if settings.listener_key is None:
        typer.echo(
            "audiopixel: AUDIOPIXEL_LISTENER_KEY is not set: this replay uses a throw-away one", err=True
        )
    key = (
        settings.listener_key.get_secret_value().encode()
        if settings.listener_key
        else secrets.token_bytes(32)
    )
    stop = Stop(ms(settings.flush_interval))
    stop.on_signals()
    received = instruments().received

    def said() -> str:
        return f"replaying {sum(received.labels(name)._value.get() for name in files):,.0f} messages"

    with progress(said):
        run_replay(
            files,
            settings,
            key,
            out=out,
            workers=workers,
            recompute=recompute,
            recovery_dir=recovery,
            stop=stop,
        )
    if stop.tick is not None:
        typer.echo("audiopixel: stopped before the end of the logs", err=True)
        raise typer.Exit(130)
    typer.echo(closing_line(files, settings))


@_command
def demo(
    seconds: Annotated[
        float | None,
        typer.Option(
            min=1,
            help="End by itself after so long, with a summary that compares Redis to the truth.",
            show_default=False,
        ),
    ] = None,
    rate: Annotated[float, typer.Option(min=1, help="Pixels a second.")] = 2000.0,
    placements: Annotated[int, typer.Option(min=1, help="How many placements.")] = 40,
    partitions: Annotated[int, typer.Option(min=1, help="Of the topic.")] = 4,
    processes: Annotated[int, typer.Option(min=1, help="Of the flow.")] = 1,
    seed: Annotated[int, typer.Option(help="Of the traffic.")] = 1,
) -> None:
    """Show everything working on this machine: a broker, a Valkey, simulated troublesome traffic, the flow
    and the exporter, on loopback. Your AUDIOPIXEL_ settings and audiopixel.toml are not used.
    """
    from flows.demo import Demo

    Demo(seconds, rate, placements, partitions, processes, seed).run()


@_command
def simulate(
    output: Annotated[
        str, typer.Argument(help="A file (.ndjson, .gz, .zst), or kafka for the configured topic.")
    ],
    events: Annotated[
        int | None,
        typer.Option(min=1, help="How many, to a file; 100,000 by default.", show_default=False),
    ] = None,
    seconds: Annotated[
        float | None,
        typer.Option(min=0, help="How long, to Kafka; without it, until Ctrl-C.", show_default=False),
    ] = None,
    rate: Annotated[float, typer.Option(min=1, help="Pixels a second.")] = 2000.0,
    placements: Annotated[int, typer.Option(min=1, help="How many placements.")] = 120,
    seed: Annotated[int, typer.Option(help="Of the traffic: the same seed is the same traffic.")] = 1,
    ledger: Annotated[
        Path | None, typer.Option(help="Write the truth as JSON here.", show_default=False)
    ] = None,
    plans: Annotated[
        Path | None,
        typer.Option(
            help="With kafka: write plans of a day that fit the traffic here, one placement starved.",
            show_default=False,
        ),
    ] = None,
) -> None:
    """Make seeded, adversarial traffic, with a ledger of the truth, to a file or in real time to Kafka."""
    from flows.demo import produce
    from flows.outputs import kafka_input
    from flows.paths import writable
    from flows.progress import progress
    from flows.settings import load
    from flows.simulate import Traffic, now_ms, run_log, write_plans
    from flows.simulate import plans as plans_of

    live = output == "kafka"
    foreign = {"--events": events} if live else {"--seconds": seconds, "--plans": plans}
    for option, value in foreign.items():
        if value is not None:
            raise UsageError(
                f"{option} is for traffic {'to a file' if live else 'to kafka'} alone: leave it out"
            )
    for path in (ledger, plans, *([] if live else [Path(output)])):
        writable(path)
    if live:
        settings = load()
        traffic = Traffic(
            seed, placements, rate, start_ms=now_ms(), partitions=len(kafka_input(settings).partitions())
        )
        if plans is not None:
            write_plans(plans, plans_of(traffic))
        stopping = threading.Event()
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda *_: stopping.set())
        produce(settings, traffic, seconds, stopping)
    else:
        wanted = events or 100_000
        traffic = Traffic(seed, placements=placements, rate=rate)

        def made() -> int:
            return traffic.ledger.totals["received"]

        with progress(lambda: f"{made():,} of {wanted:,} events", lambda: made() / wanted):
            run_log(Path(output), traffic, wanted)
    totals = traffic.ledger.expected().totals
    typer.echo(" ".join(f"{name}={number:,}" for name, number in totals.items() if number), err=True)
    if ledger is not None:
        ledger.write_bytes(traffic.ledger.to_json())


@_command
def reconcile(
    files: FILES,
    rejected: Annotated[
        Path | None,
        typer.Option(
            help="rejected.ndjson of the run: takes lateness from its dead letters instead of judging it.",
            show_default=False,
        ),
    ] = None,
    minutes: Annotated[
        Path | None,
        typer.Option(help="minutes.ndjson of the run: compare its final minutes too.", show_default=False),
    ] = None,
) -> None:
    """Recompute logs in one exact batch query and compare with Redis: prints every difference, exit code 1 if
    there is any.
    """
    from connectors.redis import connect
    from flows.differences import differences, format_differences, late_letters, minute_differences
    from flows.paths import readable
    from flows.progress import progress
    from flows.reconcile import recompute
    from flows.reconcile_settings import rules
    from flows.settings import load

    settings = load()
    for path in (rejected, minutes, *map(Path, files)):
        readable(path)
    too_late = None if rejected is None else late_letters(rejected)
    client = connect(settings.redis_url.get_secret_value(), timeout=settings.redis_timeout)
    phase = ["reading"]
    with progress(lambda: phase[-1]):
        truth = recompute(
            [Path(file) for file in files], too_late=too_late, tell=phase.append, **rules(settings)
        )
    found = differences(truth, client, settings.namespace)
    if minutes is not None:
        found += minute_differences(truth, minutes)
    rows, numbers = len(truth.flight), sum(len(row) for row in truth.flight.values())
    typer.echo(
        f"{len(found)} differences in {rows:,} rows, {numbers:,} numbers, of {truth.totals['received']:,} "
        f"messages"
    )
    if found:
        typer.echo(format_differences(found))
        raise typer.Exit(1)


@_command
def exporter(
    host: Annotated[
        str | None, typer.Option(help="Address to listen on; the default is loopback.", show_default=False)
    ] = None,
    port: Annotated[int, typer.Option(min=1, max=65535, help="Port to listen at.")] = 9480,
    cap: Annotated[
        int | None,
        typer.Option(
            min=0,
            help="Placements with series of their own, the others being one; 20,000 by default.",
            show_default=False,
        ),
    ] = None,
) -> None:
    """Serve the live page at / and /metrics/placements for Prometheus, read from Redis so that a look costs
    the flow nothing.
    """
    from flows.exporter import CAP, serve
    from flows.settings import load

    settings = load()
    serve(settings, host or settings.metrics_host, port, cap=CAP if cap is None else cap)


@_command
def top(
    interval: Annotated[float, typer.Option(min=0.2, help="Seconds between two looks.")] = 1.0,
    once: Annotated[bool, typer.Option(help="Print the table once.")] = False,
) -> None:
    """Watch the placements live in the terminal."""
    from flows.settings import load
    from flows.top import run as watch

    watch(load(), timedelta(seconds=interval), once)


@_command
def explain(
    conversion: Annotated[str, typer.Argument(help="The order id or the event id of a conversion.")],
) -> None:
    """Say which touches a conversion could have been credited to, to which it was, and by which rule; no
    listener is in it. Conversions of several campaigns or types may have the same order id: all are told.
    """
    from connectors.redis import connect, read_rows
    from flows.explain import show
    from flows.publish import row_key
    from flows.settings import load

    settings = load()
    client = connect(settings.redis_url.get_secret_value(), timeout=settings.redis_timeout)
    (row,) = read_rows(client, [row_key(settings.namespace, "conversion", conversion)])
    if not row:
        raise AudiopixelError(
            f"no decision on {conversion!r}: a conversion is decided when its minute is final, and its "
            f"decision kept for {settings.decisions_ttl.days} days (AUDIOPIXEL_DECISIONS_TTL)"
        )
    for _, decision in sorted(row.items()):
        Console().print(show(json.loads(decision), settings.zone))


@_command
def overlap(
    a: Annotated[str, typer.Argument(help="A placement.")],
    b: Annotated[str, typer.Argument(help="Another one.")],
) -> None:
    """Estimate how many of the listeners that A's flight has reached were also reached by B's, and the other
    way round.
    """
    from connectors.redis import connect, read_rows
    from flows.overlap import overlap as estimated
    from flows.overlap import show, unpack
    from flows.publish import row_key
    from flows.settings import load

    if a == b:
        raise UsageError(f"{a!r} is there twice: name two placements")
    settings = load()
    client = connect(settings.redis_url.get_secret_value(), timeout=settings.redis_timeout)
    rows = read_rows(client, [row_key(settings.namespace, "sketch", name) for name in (a, b)])
    for name, row in zip((a, b), rows, strict=True):
        if "registers" not in row:
            raise AudiopixelError(
                f"no sketch of placement {name!r}: nobody who consents was reached by it in the last "
                f"{settings.row_ttl // timedelta(hours=1)} hours, or there is no such placement"
            )
    found = estimated(*(unpack(row["registers"]) for row in rows))
    Console().print(show(a, b, found))


@_command
def forget(
    listener_ids: Annotated[
        list[str] | None,
        typer.Argument(help="Ids as the pixels have them; none: one a line on standard input."),
    ] = None,
) -> None:
    """Erase listeners: within a minute the flow drops their touches, and takes no more from their pixels.

    Redis keeps their keyed hashes, never the ids, so that a restart does not bring them back. Numbers stay;
    sketches hold no reversible id. The topic's own messages are yours to expire.
    """
    from flows.forget import deny
    from flows.settings import load

    if not listener_ids and sys.stdin.isatty():
        typer.echo("Ids of listeners, one a line, then Ctrl-D:", err=True)
    ids = [one for one in (listener_ids or sys.stdin.read().splitlines()) if one.strip()]
    if not ids:
        raise UsageError("no listener is named: give ids, or one a line on standard input")
    deny(load(), ids)
    typer.echo(f"{len(ids)} listeners will be forgotten within a minute")


@_command
def plans(
    file: Annotated[Path, typer.Argument(help="Plans, .csv or .json.", show_default=False)],
    to: Annotated[
        str | None,
        typer.Option(help="Put them into this topic, where nothing is wrong with any.", show_default=False),
    ] = None,
) -> None:
    """Check a file of plans: prints what is wrong, exit code 1 if anything is.

    With --to, each plan goes into the Kafka topic that AUDIOPIXEL_PLANS=kafka:TOPIC reads; what the file does
    not name stays there.
    """
    from connectors.kafka import KafkaWriter
    from flows.outputs import kafka_options
    from flows.planfiles import read_plans
    from flows.plans import plan_to_json
    from flows.settings import load

    book, problems = read_plans(file)
    for problem in problems:
        typer.echo(str(problem))
    if problems:
        raise typer.Exit(1)
    if to is not None:
        settings, topic = load(), to.removeprefix("kafka:")
        messages = [(name.encode(), plan_to_json(plan)) for name, plan in book.items()]
        writer = KafkaWriter(settings.kafka_brokers, topic, kafka_options(settings))
        writer.write(messages)
        writer.close()
    typer.echo(f"{len(book)} plans" + ("" if to is None else f" put into {to}"), err=True)


@_command
def config() -> None:
    """Show every setting: what is in force, where it comes from, what it means. Secrets are not shown.

    Each is set by its name in the environment, or in audiopixel.toml by the rest of it in lower case
    (`flush_interval = "PT1S"`). Durations: PT10M, 00:10:00, or seconds. Names with texts: JSON in the
    environment, a table in the file. AUDIOPIXEL_CONFIG names another file.
    """
    from flows.config import show
    from flows.settings import load

    show(load())


if __name__ == "__main__":
    app()
