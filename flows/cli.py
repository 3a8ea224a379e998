"""The command line: `audiopixel --help`."""

from __future__ import annotations

import secrets
import signal
import threading
from datetime import timedelta
from pathlib import Path
from typing import Annotated

import typer

from flows.command import FILES, app, command, interruptible
from flows.errors import UsageError

__all__ = ["app"]


@command
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
            "--recompute",
            help="Begin a new generation in Redis: for a log that is deliberately counted from scratch, with "
            "an empty recovery directory. Restarts go on with it.",
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


@command
def replay(
    files: FILES,
    out: Annotated[
        Path | None,
        typer.Option(
            help="Also write minutes.ndjson, credits.ndjson and rejected.ndjson here, anew.",
            show_default=False,
        ),
    ] = None,
    workers: Annotated[int, typer.Option(min=1, help="Threads; the numbers do not depend on it.")] = 1,
    recompute: Annotated[
        bool,
        typer.Option(
            "--recompute", help="Begin a new generation in a Redis that holds another log's numbers."
        ),
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
    from flows.settings import load
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
    stop = Stop()
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
    if stop.asked:
        typer.echo("audiopixel: stopped before the end of the logs", err=True)
        raise typer.Exit(130)
    typer.echo(closing_line(files, settings))


@command
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


@command
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

        interruptible()
        with progress(lambda: f"{made():,} of {wanted:,} events", lambda: made() / wanted):
            run_log(Path(output), traffic, wanted)
    totals = traffic.ledger.expected().totals
    typer.echo(" ".join(f"{name}={number:,}" for name, number in totals.items() if number), err=True)
    if ledger is not None:
        ledger.write_bytes(traffic.ledger.to_json())


@command
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
    memory: Annotated[
        str, typer.Option(help="The most that the database may take; the rest goes to temporary files.")
    ] = "2GB",
) -> None:
    """Recompute logs in one exact batch query and compare every published field with Redis: prints every
    difference, exit code 1 if there is any.
    """
    from connectors.files import logs
    from connectors.redis import connect
    from flows.differences import compare, format_differences, late_letters, minute_differences, summary
    from flows.paths import readable
    from flows.progress import progress
    from flows.reconcile import recompute
    from flows.reconcile_settings import denied, rules
    from flows.settings import load

    settings = load()
    for path in (rejected, minutes):
        readable(path)
    files = logs(files)
    too_late = None if rejected is None else late_letters(rejected)
    if others := sorted({partition for partition, *_ in too_late or ()} - set(files)):
        raise UsageError(f"{rejected}: is of another log, {others[0]}: name the logs as they were replayed")
    client = connect(settings.redis_url.get_secret_value(), timeout=settings.redis_timeout)
    phase = ["reading"]
    interruptible()
    with progress(lambda: phase[-1]):
        truth = recompute(
            [Path(file) for file in files],
            too_late=too_late,
            denied=denied(settings, client),
            memory=memory,
            tell=lambda doing: phase.__setitem__(0, doing),
            **rules(settings),
        )
        phase[0] = "comparing"
        comparison = compare(truth, client, settings.namespace)
    if minutes is not None:
        comparison.found += minute_differences(truth, minutes)
    typer.echo(summary(comparison, truth))
    if comparison.found:
        typer.echo(format_differences(comparison.found))
        raise typer.Exit(1)


@command
def collect(
    processes: Annotated[int, typer.Option(min=1, help="Processes on this machine, one a core.")] = 1,
    seat: Annotated[int | None, typer.Option(hidden=True)] = None,
) -> None:
    """Take pixels over HTTP, durable before they are answered: in Kafka, or on the spool while Kafka is away.

    SIGTERM: goes on serving for a while (AUDIOPIXEL_COLLECT_DRAIN), drains, and ends with 0, or with 75 where
    something still rests on the spool: start it again to send that.
    """
    import asyncio

    from flows.collector.processes import run_all
    from flows.collector.serve import Collector
    from flows.settings import load

    settings = load()
    if seat is None and processes > 1:
        code = run_all(processes)
    else:
        code = asyncio.run(Collector(settings, seat or 0, processes).run())
    if code:
        raise typer.Exit(code)


@command
def release(
    collector: Annotated[str, typer.Argument(help="Its id, as alerts and its spool's file `id` say it.")],
) -> None:
    """Say bye for a collector that does not come back with its spool, so that no window waits for it."""
    import asyncio

    from flows.collector.release import release as say_bye
    from flows.settings import load

    if not collector or len(collector) > 128:
        raise UsageError("the id of a collector has 1 to 128 letters")
    partitions = asyncio.run(say_bye(load(), collector))
    typer.echo(f"{collector} ended in {partitions} partitions")


@command
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


@command
def top(
    interval: Annotated[float, typer.Option(min=0.2, help="Seconds between two looks.")] = 1.0,
    once: Annotated[bool, typer.Option("--once", help="Print the table once.")] = False,
) -> None:
    """Watch the placements live in the terminal."""
    from flows.settings import load
    from flows.top import run as watch

    settings = load()
    interruptible()
    watch(settings, timedelta(seconds=interval), once)


from flows import asking  # noqa: E402, F401 (its commands come behind these in the help)
from flows.collector import commands  # noqa: E402, F401

if __name__ == "__main__":
    app()
