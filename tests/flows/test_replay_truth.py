"""Replaying the logs of tests/data gives exactly their truth, whatever the order of arrival and the number of
workers.
"""

from __future__ import annotations

import csv
import gzip
import json
import random
import re
import zlib
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from connectors.redis.client import Client
from flows.cli.commands import app
from flows.cli.reconcile_settings import rules
from flows.errors import SettingsError
from flows.intake.erasure import deny
from flows.reconcile.comparison import differences
from flows.reconcile.recomputation import recompute
from flows.reconcile.replay_files import minute_differences
from flows.replay import replay
from flows.rows import row_columns
from flows.settings.fields import Settings
from flows.simulate.feed import run_log
from flows.simulate.scenario import Trouble
from flows.simulate.traffic import Traffic
from flows.state import journal, runs

LISTENER_KEY = b"a key of sixteen bytes or more"

DATA = Path(__file__).parents[1] / "data"
LONG = timedelta(days=60)
"""As long as any of these logs: no row ends in them."""
Rows = Callable[[Settings, str], dict[str, dict[str, str]]]


def lines_of(log: str) -> list[bytes]:
    return gzip.open(DATA / f"{log}.ndjson.gz").read().splitlines()


def truth_of(truth: str) -> Iterator[tuple[str, dict[str, int]]]:
    with open(DATA / f"{truth}.csv") as file:
        for row in csv.DictReader(file):
            placement = row.pop("placement_id")
            yield placement, {name: int(value) for name, value in row.items()}


def wrong(rows: dict[str, dict[str, str]], log: str, truth_file: str = "truth") -> list[str]:
    found = []
    for placement, truth in truth_of(f"{log}.{truth_file}"):
        for name, want in truth.items():
            got = int(rows[placement][name])
            right = abs(got - want) <= 0.032 * want if name == "flight.reach" and want > 1000 else got == want
            if not right:
                found.append(f"{placement} {name}: {want} expected, {got} published")
    return found


def shuffled(lines: list[bytes], seed: int) -> list[bytes]:
    """Sorted lines moved by up to ten seconds, less than the watermark's bound."""
    rng = random.Random(seed)
    keyed = [(int(re.search(rb'"ts":(\d+)', line)[1]) + rng.random() * 9_900, line) for line in lines]
    return [line for _, line in sorted(keyed)]


def split(lines: list[bytes], parts: int) -> list[list[bytes]]:
    """By listener, so that all pixels of a play and a conversion with its touches stay together."""
    out: list[list[bytes]] = [[] for _ in range(parts)]
    for line in lines:
        out[zlib.crc32(re.search(rb'"listener_id":"([^"]*)"', line)[1]) % parts].append(line)
    return out


def written(directory: Path, parts: list[list[bytes]]) -> list[str]:
    paths = []
    for number, lines in enumerate(parts):
        paths.append(str(directory / f"part-{number}.ndjson"))
        Path(paths[-1]).write_bytes(b"".join(line + b"\n" for line in lines))
    return paths


@pytest.mark.parametrize("workers", [1, 2, 4])
@pytest.mark.parametrize("log", ["obd", "mta", "adversarial"])
def test_a_log_as_it_is_gives_its_truth(
    log: str, workers: int, settings_of: Callable[..., Settings], rows_of: Rows
) -> None:
    settings = settings_of(row_ttl=LONG)
    replay([str(DATA / f"{log}.ndjson.gz")], settings, LISTENER_KEY, workers=workers)
    assert wrong(rows_of(settings, "placement"), log) == []


@pytest.mark.parametrize(("seed", "parts", "workers"), [(1, 1, 1), (2, 3, 2), (3, 4, 4)])
@pytest.mark.parametrize("log", ["obd", "mta"])
def test_neither_order_nor_partitions_nor_workers_change_a_number(
    log: str,
    seed: int,
    parts: int,
    workers: int,
    tmp_path: Path,
    settings_of: Callable[..., Settings],
    rows_of: Rows,
) -> None:
    settings = settings_of(row_ttl=LONG)
    files = written(tmp_path, split(shuffled(lines_of(log), seed), parts))
    replay(files, settings, LISTENER_KEY, workers=workers)
    assert wrong(rows_of(settings, "placement"), log) == []


@pytest.mark.parametrize(("seed", "parts", "workers"), [(0, 1, 1), (4, 3, 2)])
def test_a_shorter_listen_window_gives_its_truth(
    seed: int,
    parts: int,
    workers: int,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    settings_of: Callable[..., Settings],
    rows_of: Rows,
) -> None:
    monkeypatch.setenv("AUDIOPIXEL_LISTEN_WINDOW", "7d")
    settings = settings_of(row_ttl=LONG)
    files = written(tmp_path, split(shuffled(lines_of("mta"), seed), parts))
    replay(files, settings, LISTENER_KEY, workers=workers)
    assert wrong(rows_of(settings, "placement"), "mta", "truth-listen-7d") == []


@pytest.mark.parametrize("batch", [7, 997])
def test_the_size_of_batches_changes_no_number(
    batch: int, settings_of: Callable[..., Settings], rows_of: Rows, tmp_path: Path
) -> None:
    settings = settings_of(batch_messages=batch)
    replay([str(DATA / "adversarial.ndjson.gz")], settings, LISTENER_KEY, out=tmp_path)
    assert wrong(rows_of(settings, "placement"), "adversarial") == []


def test_minutes_and_ledger_match_the_adversarial_truth(
    tmp_path: Path, settings_of: Callable[..., Settings], client: Client
) -> None:
    settings = settings_of()
    log = str(DATA / "adversarial.ndjson.gz")
    replay([log], settings, LISTENER_KEY, out=tmp_path, workers=2)
    final: dict[tuple[str, int], dict[str, int]] = {}
    for line in (tmp_path / "minutes.ndjson").read_text().splitlines():
        minute = json.loads(line)
        key = (minute["placement_id"], minute["minute_ms"])
        if minute["state"] == "final":
            assert key not in final, "a minute is final once"
            final[key] = minute
        else:
            assert key not in final, "nothing final changes"
    with gzip.open(DATA / "adversarial.minutes.csv.gz", "rt") as file:
        for row in csv.DictReader(file):
            minute = final.get((row["placement_id"], int(row["minute_ms"])), {})
            for name in row.keys() - {"placement_id", "minute_ms"}:
                assert minute.get(name, 0) == int(row[name]), (row, name)
    ledger = client.hgetall(f"{settings.namespace}:partition:{{{log}}}")
    truth = json.loads((DATA / "adversarial.totals.json").read_text())
    for name in truth.keys() - {"unattributed", "conversions"}:
        assert int(ledger[name]) == truth[name], name
    meta = client.hgetall(f"{settings.namespace}:meta")
    assert (meta["unattributed"], meta["conversions_accepted"], meta["conversions_pending"]) == (
        str(truth["unattributed"]),
        str(truth["conversions"]),
        "0",
    )
    letters = [json.loads(line) for line in (tmp_path / "rejected.ndjson").read_text().splitlines()]
    for reason in ("malformed", "invalid", "too_late"):
        assert sum(one["reason"] == reason for one in letters) == truth[f"rejected.{reason}"]
    assert len({one["position"] for one in letters}) == len(letters)


@pytest.mark.parametrize(
    ("seed", "model"), [(11, "last_touch"), (12, "first_touch"), (13, "linear"), (14, "time_decay")]
)
def test_a_simulated_log_reconciles_without_a_difference(
    seed: int, model: Any, tmp_path: Path, settings_of: Callable[..., Settings], client: Client
) -> None:
    utm = {f"pl-{n:04}": f"pl-{n + 1:04}" for n in range(20)}
    settings = settings_of(attribution=model, utm_placements=utm)
    files = [str(tmp_path / f"{n}.ndjson.gz") for n in range(3)]
    traffic = Traffic(
        seed, 30, 600, partitions=3, trouble=Trouble(conversions=0.1, clicks=0.1), listeners=2000
    )
    run_log([Path(file) for file in files], traffic, 20_000)
    replay(files, settings, LISTENER_KEY, out=tmp_path / "out", workers=2)
    truth = recompute([Path(file) for file in files], rules(settings))
    assert differences(truth, client, settings.namespace) == []
    assert minute_differences(truth, tmp_path / "out" / "minutes.ndjson") == []
    ways = {
        name
        for row in truth.flight.values()
        for name, count in row.items()
        if count and "conversions_" in name
    }
    assert {f"flight.conversions_{way}" for way in ("listen", "utm", "declared")} <= ways


def test_a_second_replay_changes_only_the_fence(settings_of: Callable[..., Settings], rows_of: Rows) -> None:
    settings = settings_of()
    log = [str(DATA / "obd.ndjson.gz")]
    replay(log, settings, LISTENER_KEY)
    first = rows_of(settings, "placement")
    replay(log, settings, LISTENER_KEY)
    second = rows_of(settings, "placement")
    changing = {"fence", "rev", "updated_ms"}
    for name, row in first.items():
        assert {k: v for k, v in row.items() if k not in changing} == {
            k: v for k, v in second[name].items() if k not in changing
        }
        assert int(second[name]["fence"]) > int(row["fence"])


@pytest.mark.parametrize("received", [True, False])
def test_a_log_of_one_pixel_ends_on_the_pixels_day(
    received: bool, tmp_path: Path, settings_of: Callable[..., Settings], rows_of: Rows
) -> None:
    settings, ts = settings_of(), 1_764_000_000_000
    one = {"event_id": "e", "event": "impression", "ts": ts, "placement_id": "p"}
    line = json.dumps(one | ({"received_at": ts} if received else {})).encode()
    replay(written(tmp_path, [[line]]), settings, LISTENER_KEY)
    row = rows_of(settings, "placement")["p"]
    assert [row[f"{window}.impressions"] for window in ("5m", "1h", "1d", "flight")] == ["1"] * 4
    assert (row["as_of_ms"], row["final_through_ms"]) == (str(ts), str(ts + 60_000))


def test_a_wrong_clock_at_a_logs_end_moves_no_window(
    tmp_path: Path, settings_of: Callable[..., Settings], rows_of: Rows
) -> None:
    settings, ts = settings_of(), 1_764_000_000_000
    times = [[ts, ts + 1000, ts + 3653 * 86_400_000], [ts + 3653 * 86_400_000]]
    logs = [
        [
            json.dumps({"event_id": f"{n}", "event": "impression", "ts": at, "placement_id": "p"}).encode()
            for n, at in enumerate(log, 3 * part)
        ]
        for part, log in enumerate(times)
    ]
    replay(written(tmp_path, logs), settings, LISTENER_KEY)
    row = rows_of(settings, "placement")["p"]
    assert (row["1d.impressions"], row["flight.impressions"]) == ("2", "4")
    assert row["as_of_ms"] == str(ts + 1000)


def test_another_log_needs_a_new_generation(
    tmp_path: Path, settings_of: Callable[..., Settings], rows_of: Rows
) -> None:
    settings = settings_of()
    replay([str(DATA / "obd.ndjson.gz")], settings, LISTENER_KEY)
    other = written(tmp_path, [lines_of("obd")[:1000]])
    with pytest.raises(SettingsError, match="--recompute"):
        replay(other, settings, LISTENER_KEY)
    replay(other, settings, LISTENER_KEY, recompute=True)
    assert {row["generation"] for row in rows_of(settings, "campaign").values() if row["fence"] == "2"} == {
        "2"
    }


def test_no_identity_leaves_the_decode_step(
    tmp_path: Path, settings_of: Callable[..., Settings], client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runs, "SPILL_ROWS", 10)  # so that what is in files at size is in files here
    monkeypatch.setattr(journal, "SPILL_BYTES", 1)
    monkeypatch.setattr(row_columns, "SKETCH_FROM", 1)
    canary = "canary-3f9a"
    lines = []
    for number, line in enumerate(lines_of("adversarial")[:8000]):
        try:
            event = json.loads(line)
            event |= {
                "listener_id": f"{canary}-L{number % 50}",
                "ip": f"{canary}-ip",
                "user_agent": f"{canary}-agent",
            }
            event["ip" if number % 97 else "ts"] = (
                f"{canary}-ip"  # some invalid, so that dead letters have their chance
            )
            lines.append(json.dumps(event).encode())
        except (ValueError, TypeError, AttributeError):
            lines.append(line + canary.encode())
    settings = settings_of(listener_key=LISTENER_KEY.decode())
    deny(settings, [f"{canary}-L7"])
    recovery = tmp_path / "recovery"
    replay(written(tmp_path, [lines]), settings, LISTENER_KEY, out=tmp_path / "out", recovery_dir=recovery)
    places = [path for top in (recovery, tmp_path / "out") for path in top.rglob("*") if path.is_file()]
    names = {path.name for path in places}
    assert {"rejected.ndjson", "minutes.ndjson", "credits.ndjson"} <= names
    assert "manifest-0" in names
    assert {"plays", "touches", "rows"} <= {path.parent.parent.name for path in places}
    assert '"way":"listen"' in (tmp_path / "out" / "credits.ndjson").read_text()
    for place in places:
        text = place.read_bytes()
        text = re.sub(
            rb'"ts":"canary[^"]*"', b"", text
        )  # the wrong timestamp itself is kept, as the field that is wrong
        assert canary.encode() not in text, place
    kinds = {key.split(":")[2] for key in client.scan_iter(f"{settings.namespace}:*")}
    assert {"placement", "campaign", "sketch", "conversion", "forgotten", "meta", "partition"} <= kinds
    for key in client.scan_iter(f"{settings.namespace}:*"):
        assert canary not in str(client.dump(key) if client.type(key) == "string" else client.type(key)), key
        if client.type(key) == "hash":
            assert canary not in str(client.hgetall(key)), key


def test_the_command_line_teaches() -> None:
    from typer.testing import CliRunner

    for command in (
        "",
        "demo",
        "run",
        "replay",
        "simulate",
        "reconcile",
        "explain",
        "overlap",
        "forget",
        "plans",
        "exporter",
        "top",
        "config",
    ):
        result = CliRunner().invoke(app, [*command.split(), "--help"])
        assert result.exit_code == 0
        assert len(result.output.splitlines()) > 5
