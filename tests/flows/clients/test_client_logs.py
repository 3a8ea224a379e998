"""Downloads and deliveries over whole logs: the worked example in every order, and the oracle's and the
simulator's truth, on several workers and across a stop.
"""

from __future__ import annotations

import json
import random
import threading
import time
from collections.abc import Callable
from datetime import timedelta
from hashlib import blake2b
from itertools import permutations
from pathlib import Path
from typing import Any, Final

import pytest

from connectors.redis.client import Client
from flows.cli.reconcile_settings import rules
from flows.engine.source import StopSignal
from flows.errors import SettingsError
from flows.intake.erasure import deny
from flows.reconcile.comparison import differences
from flows.reconcile.recomputation import recompute
from flows.reconcile.replay_files import minute_differences
from flows.replay import replay
from flows.settings.fields import Settings
from flows.simulate.client_truth import COUNTS
from flows.simulate.feed import run_log
from flows.simulate.scenario import Trouble
from flows.simulate.traffic import Traffic

KEY: Final = b"a key of sixteen bytes or more"
MINUTE, HOUR, DAY = 60_000, 3_600_000, 86_400_000
MONDAY: Final = 1_793_577_600_000
"""2 November 2026, London."""
EXAMPLE: Final = (22 * HOUR, 27 * HOUR, 46 * HOUR + 15 * MINUTE, 71 * HOUR + 15 * MINUTE)
WANTED: Final = {"calendar": "1101", "first_touch": "1011", "last_touch": "1001"}
Line = dict[str, Any]
Rows = Callable[[Settings, str], dict[str, dict[str, str]]]


def written(path: Path, lines: list[Line]) -> str:
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return str(path)


def example(kind: str, order: tuple[int, ...], name: str) -> list[Line]:
    """The four events, each of a placement of its own, in an order of arrival."""
    return [
        {
            "event_id": f"{name}-{place}", "event": kind, "ts": MONDAY + EXAMPLE[place],
            "placement_id": f"{name}-{place}", "creative_id": name, "episode": name, "podcast": "pod",
            "client_id": f"client-{name}", "consent": True,
        }
        for place in order
    ]  # fmt: skip


def _by_turns(logs: list[list[Line]]) -> list[Line]:
    return [line for step in zip(*logs, strict=True) for line in step]


@pytest.mark.parametrize("workers", [1, 3])
@pytest.mark.parametrize(("kind", "counted"), [("download", "downloads"), ("delivered", "deliveries")])
def test_the_worked_example_in_every_order_on_several_workers(
    kind: str, counted: str, workers: int, tmp_path: Path, settings_of: Callable[..., Settings], rows_of: Rows
) -> None:
    settings = settings_of(
        allowed_lateness=timedelta(days=4), horizon=timedelta(days=5), row_ttl=timedelta(days=60)
    )
    orders = list(permutations(range(4)))
    logs = [example(kind, order, f"x{number}") for number, order in enumerate(orders)]
    files = [
        written(
            tmp_path / f"{part}.ndjson", [line for step in zip(*logs[part::3], strict=True) for line in step]
        )
        for part in range(3)
    ]
    replay(files, settings, KEY, out=tmp_path / "out", workers=workers)
    rows = rows_of(settings, "placement")
    for number in range(len(orders)):
        found = {
            window: "".join(
                rows[f"x{number}-{place}"].get(f"flight.{counted}_{window}", "0") for place in range(4)
            )
            for window in WANTED
        }
        assert found == WANTED, orders[number]
    (podcast,) = rows_of(settings, "podcast").values()
    for window, digits in WANTED.items():
        assert int(podcast[f"flight.{counted}_{window}"]) == digits.count("1") * len(orders)
        assert f"flight.{counted}_{window}_provisional" not in podcast
    minutes = [json.loads(line) for line in (tmp_path / "out" / "minutes.ndjson").open()]
    final = [one for one in minutes if one["state"] == "final"]
    assert sum(one.get(f"{counted}_first_touch", 0) for one in final) == 3 * len(orders)
    assert len(final) == 4 * len(orders), "each one counts in some window"


def troubled(seed: int, calls: int, directory: Path) -> tuple[list[Path], Traffic]:
    """Three days of traffic of few listeners, with every trouble."""
    traffic = Traffic(seed, 25, 0.08, partitions=3, trouble=Trouble(no_consent=0.1), listeners=90)
    files = [directory / f"{number}.ndjson" for number in range(3)]
    run_log(files, traffic, calls)
    return files, traffic


@pytest.mark.parametrize(("seed", "workers"), [(1, 1), (2, 3)])
def test_an_adversarial_log_matches_simulator_and_oracle(
    seed: int,
    workers: int,
    tmp_path: Path,
    settings_of: Callable[..., Settings],
    rows_of: Rows,
    client: Client,
) -> None:
    settings = settings_of(row_ttl=timedelta(days=60), app_rows=True)
    files, traffic = troubled(seed, 20_000, tmp_path)
    replay(list(map(str, files)), settings, KEY, out=tmp_path / "out", workers=workers)
    truth = recompute(files, rules(settings))
    assert differences(truth, client, settings.namespace) == []
    assert minute_differences(truth, tmp_path / "out" / "minutes.ndjson") == []
    expected = traffic.ledger.expected()
    for scope, rows in (("placement", expected.flight), *expected.beside.items()):
        published = rows_of(settings, scope)
        for name, counts in rows.items():
            for metric in COUNTS:
                assert int(published[name].get(f"flight.{metric}", 0)) == counts[metric], (name, metric)
    sums = {name: sum(row[name] for row in expected.flight.values()) for name in COUNTS}
    assert all(sums.values())
    assert len({sums[f"downloads_{window}"] for window in WANTED}) == 3, "the windows differ in it"


def test_a_stopped_flow_resumes_with_its_clients(
    tmp_path: Path, settings_of: Callable[..., Settings], client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("flows.state.runs.SPILL_ROWS", 4)
    settings = settings_of(
        flush_interval=timedelta(milliseconds=10),
        save_interval=timedelta(milliseconds=50),
        batch_messages=20,
        row_ttl=timedelta(days=60),
    )
    files, _ = troubled(3, 12_000, tmp_path)
    names, recovery, stop = list(map(str, files)), tmp_path / "recovery", StopSignal()

    def watch() -> None:
        while not any(path.is_file() for path in (recovery / "clients").rglob("*")):
            time.sleep(0.002)
        stop.set()

    watcher = threading.Thread(target=watch)
    watcher.start()
    replay(names, settings, KEY, recovery_dir=recovery, stop=stop)
    watcher.join(60)
    truth = recompute(files, rules(settings))
    assert differences(truth, client, settings.namespace) != [], "it was stopped on the way"
    replay(names, settings.model_copy(update={"batch_messages": 500}), KEY, recovery_dir=recovery)
    assert differences(truth, client, settings.namespace) == []


def test_forgotten_and_unconsented_clients_have_no_key(
    tmp_path: Path, settings_of: Callable[..., Settings], rows_of: Rows, client: Client
) -> None:
    settings = settings_of(listener_key=KEY.decode())
    deny(settings, ["gone"])
    usual = {"event": "download", "placement_id": "p", "episode": "e", "consent": True, "client_id": "here"}
    other = [
        {}, {"client_id": "gone"}, {"consent": False}, {"client_id": "[CLIENT]"}, {"client_id": None},
        {"episode": None}, {"episode": None, "podcast": "pod"}, {"listener_id": "here", "client_id": None},
    ]  # fmt: skip
    lines = [
        {"event_id": f"e{number}", "ts": MONDAY + number, **usual, **more}
        for number, more in enumerate(other)
    ]
    random.Random(1).shuffle(lines)
    log = written(tmp_path / "log.ndjson", lines)
    replay([log], settings, KEY)
    row = rows_of(settings, "placement")["p"]
    assert (row["flight.downloads_calendar"], row["flight.downloads_unkeyed"]) == ("2", "6")
    truth = recompute(
        [Path(log)], rules(settings), denied=lambda kind, who: (kind, who) == ("listener", b"gone")
    )
    assert differences(truth, client, settings.namespace) == []


@pytest.mark.parametrize("key", [KEY, b"another key of sixteen bytes"])
def test_a_secret_hash_chooses_among_simultaneous_events(
    key: bytes, tmp_path: Path, settings_of: Callable[..., Settings], rows_of: Rows, client: Client
) -> None:
    """A sender that could order them would take each download from the placement that it is against."""
    settings = settings_of(listener_key=key.decode())
    lines = [
        {
            "event": "download", "placement_id": f"p{number % 2}", "episode": f"e{number // 2}", "ts": MONDAY,
            "consent": True, "client_id": "c", "event_id": _public(number),
        }
        for number in range(40)
    ]  # fmt: skip
    log = Path(written(tmp_path / "log.ndjson", lines))
    replay([str(log)], settings, key)
    rows = rows_of(settings, "placement")
    counts = [int(rows[name].get("flight.downloads_calendar", 0)) for name in ("p0", "p1")]
    assert sum(counts) == 20
    assert 3 < counts[0] < 17, "by a public hash p1 has all"
    assert differences(recompute([log], rules(settings)), client, settings.namespace) == []
    with pytest.raises(SettingsError, match="AUDIOPIXEL_LISTENER_KEY"):
        recompute([log], rules(settings.model_copy(update={"listener_key": None})))


def _public(number: int) -> str:
    """An event id whose hash without a key is small where the number is odd, and great elsewhere."""
    return next(
        name
        for name in (f"{number}-{turn}" for turn in range(1_000))
        if (blake2b(name.encode(), digest_size=4).digest()[0] & 127 < 32) == (number % 2 == 1)
    )
