"""The demo as a newcomer runs it: real processes, ended by time, by Ctrl-C and by a kill."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import re
import shutil
import signal
import struct
import subprocess
import sys
import termios
import threading
import time
import uuid
from collections import Counter
from contextlib import suppress
from datetime import timedelta
from itertools import takewhile
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import pytest
import redis

from connectors.alerting import PROGRAMS, program
from connectors.kafka import KafkaInput
from flows.archive import check, store_of
from flows.delivery.pacing import Thresholds, pace
from flows.delivery.plan_files import read_plans
from flows.demo.alerts import Firing, lines
from flows.demo.demo import OUT_OF_ORDERNESS, Demo, use_own_settings
from flows.demo.past import MAX_PAST, past_of
from flows.settings.loading import load
from flows.simulate import now_ms, write_plans
from flows.simulate.history import History

MARK = "DEMO_OF_A_TEST"
"""In the environment of all its processes: settings of ours it drops."""
NAMESPACE = "audiopixel:v1"
STARVED, CAMPAIGN = "pl-0039", "c-4"
"""The last of the demo's forty placements."""
AHEAD, BREACHED = "pl-0005", "pl-0002"
"""The placement that delivers too much, and the one that runs in blocked content."""
MISSING = any(program(name) is None for name in PROGRAMS)


def running(mark: str) -> dict[int, str]:
    """Command lines of the processes that run with this mark in their environment, by process id."""
    found = {}
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if f"{MARK}={mark}".encode() in (process / "environ").read_bytes().split(b"\0"):
                command = (process / "cmdline").read_bytes().replace(b"\0", b" ").decode()
                found[int(process.name)] = command
        except OSError:
            continue
    return found


def alive(mark: str) -> list[str]:
    """Command lines of the processes that run with this mark in their environment."""
    return list(running(mark).values())


def own_settings(pid: int) -> dict[str, str]:
    """The environment of a process."""
    pairs = (Path("/proc") / str(pid) / "environ").read_bytes().decode().split("\0")
    return dict(pair.split("=", 1) for pair in pairs if pair)


def started(
    *arguments: str, errors: int = subprocess.STDOUT, **environment: str
) -> tuple[subprocess.Popen[str], str]:
    mark = uuid.uuid4().hex
    process = subprocess.Popen(
        [sys.executable, "-m", "flows.cli", "demo", *arguments],
        env={**os.environ, MARK: mark, **environment},
        stdout=subprocess.PIPE,
        stderr=errors,
        text=True,
        start_new_session=True,
    )
    return process, mark


def leftovers(mark: str, within_s: float = 8.0) -> list[str]:
    """The remaining processes of a demo after a while."""
    deadline = time.monotonic() + within_s
    while (left := alive(mark)) and time.monotonic() < deadline:
        time.sleep(0.1)
    return left


def test_the_first_screen_has_one_under_and_one_over(tmp_path: Path) -> None:
    demo = Demo(20.0, 150.0, 40, 4, 1, 1)
    booked, past = past_of(demo._traffic(now_ms()))
    write_plans(tmp_path / "plans.csv", booked)
    book, problems = read_plans(tmp_path / "plans.csv")
    assert problems == []
    assert [name for name, plan in book.items() if plan.blocked_categories] == [BREACHED]
    traffic, began_ms = past.traffic, past.from_ms
    calls = sum(1 for _ in past)
    assert calls == past.tally.totals["received"] <= 1.1 * MAX_PAST
    traffic.ledger.add(past.tally)
    bound_ms = OUT_OF_ORDERNESS // timedelta(milliseconds=1)
    for second in range(0, 121, 5):
        while traffic.next_arrival_ms < traffic.start_ms + second * 1000:
            next(traffic)
        at_ms = traffic.start_ms + second * 1000
        states: dict[str, list[str]] = {}
        for name, plan in book.items():
            delivered = traffic.ledger.placements[name].counts["impressions"]
            last_hour = delivered * 3_600_000 // (at_ms - began_ms)
            state = pace(plan, delivered, last_hour, at_ms - bound_ms, Thresholds()).state
            states.setdefault(state, []).append(name)
        assert states.pop("under") == [STARVED], second
        assert states.pop("over") == [AHEAD], second
        assert set(states) == {"on_track"}, (second, states)


def test_the_generated_past_is_ordered_within_the_flight() -> None:
    traffic = Demo(20.0, 150.0, 40, 4, 1, 1)._traffic(10_000_000_000)
    past = History(traffic, 9_999_000_000, 10_000_000_000, BREACHED)
    calls = [(call.partition, call.arrival_ms, json.loads(call.value)) for call in past]
    times = [at for _, at, _ in calls]
    assert times == sorted(times)
    assert (min(times), max(times)) >= (9_999_000_000, 9_999_000_000)
    assert max(times) < 10_000_000_000
    events = Counter(event["event"] for _, _, event in calls)
    counts = past.tally.placements
    assert events["impression"] == sum(of.counts["impressions"] for of in counts.values())
    assert events["complete"] == sum(of.counts["completes"] for of in counts.values())
    assert events["conversion"] == past.tally.totals["conversions"] > 10
    assert {event["placement_id"] for _, _, event in calls if "content_category" in event} == {BREACHED}


def test_it_takes_nothing_from_the_users_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "audiopixel.toml").write_text('timezone = "Mars/Olympus"\n')
    monkeypatch.setenv("AUDIOPIXEL_KAFKA_OPTIONS", '{"security.protocol": "SASL_SSL"}')
    monkeypatch.setenv("AUDIOPIXEL_NO_SUCH_SETTING", "1")
    monkeypatch.setenv("AUDIOPIXEL_CONFIG", "nowhere.toml")
    directory = tmp_path / "demo"
    directory.mkdir()
    use_own_settings(directory)
    settings = load()
    assert settings.kafka_options == {}
    assert settings.timezone == "Europe/London"


@pytest.mark.parametrize(("seconds", "promised"), [(4.0, False), (19.0, False), (20.0, True), (None, True)])
def test_an_alert_is_announced_only_with_enough_seconds(seconds: float | None, promised: bool) -> None:
    said = Demo(seconds, 150.0, 40, 4, 1, 1).promise(STARVED)
    assert ("its alert fires" in said) == promised
    assert ("too few seconds for its alert, which takes 20" in said) != promised


def bounded(errors: int = subprocess.STDOUT, **environment: str) -> str:
    """The output of a demo of 20 s that ended well."""
    process, mark = started("--seconds", "20", errors=errors, **environment)
    output, _ = process.communicate(timeout=400)
    assert process.returncode == 0, output
    assert leftovers(mark) == []
    return output


class Ended(NamedTuple):
    """The screen of a demo of 20 s and its final output."""

    screen: str
    output: str


@pytest.fixture(scope="module")
def ended() -> Ended:
    """On a screen of 80 by 24."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
    screen: list[bytes] = []

    def read() -> None:
        with suppress(OSError):  # how Linux says that the other side is closed
            while True:
                screen.append(os.read(ours, 65_536))

    reader = threading.Thread(target=read)
    reader.start()
    output = bounded(errors=theirs)
    os.close(theirs)
    reader.join(5)
    os.close(ours)
    return Ended(b"".join(screen).decode(), output)


def check_against_the_ledger(output: str) -> None:
    assert "differ" not in output
    assert "calls against the collector" in output
    assert "flight.completes" in output
    received, stored = (
        next(line for line in output.splitlines() if name in line) for name in ("received", "stored")
    )
    assert int(received.split()[2].replace(",", "")) > 100_000
    assert int(stored.split()[2].replace(",", "")) > 300


def test_a_bounded_demo_ends_with_redis_equal_to_the_ledger(ended: Ended) -> None:
    check_against_the_ledger(ended.output)
    alert = "state change" if MISSING else "AudiopixelUnderDelivery"
    assert f"{alert} fires for {STARVED}, which the simulator starves" in ended.output


def test_an_80_by_24_screen_shows_ten_placements_starved_first(
    ended: Ended,
) -> None:
    plain = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", ended.screen)
    shown = re.split(r"[\r\n]+", plain)
    assert max(len(line) for line in [*shown, *ended.output.splitlines()]) <= 80
    assert "…" not in ended.output, "the summary cuts no name"
    row = re.compile(r"(?:under|over|at risk|on track|warming up|no plan) +(pl-\d+|door-\w+) ")
    places = [place for place, line in enumerate(shown) if row.match(line)]
    first, last = places[0], max(place for place in places if place - 1 not in places)
    rows = list(takewhile(row.match, shown[last:]))
    assert len(rows) >= 10
    assert rows[0].split()[:2] == ["under", STARVED]
    head = " ".join(line.strip() for line in shown[: first - 5])
    assert f"{STARVED} is starved: it is `under`, and its alert fires." in head


def test_without_prometheus_the_flows_own_alert_fires(tmp_path: Path) -> None:
    for name in ("sh", "sleep", "rm"):  # all that ends its processes
        path = shutil.which(name)
        assert path is not None
        (tmp_path / name).symlink_to(path)
    output = bounded(PATH=str(tmp_path))
    check_against_the_ledger(output)
    assert "Prometheus and Alertmanager not found" in output
    assert "alert rules are not evaluated" in output
    assert f"state change fires for {STARVED}, which the simulator starves" in output


class Running:
    """A demo under way, and its output so far."""

    def __init__(self, *arguments: str) -> None:
        self.process, self.mark = started(*arguments)
        self.output: list[str] = []
        assert self.process.stdout is not None
        self._reader = threading.Thread(target=self.output.extend, args=(self.process.stdout,))
        self._reader.start()

    def said(self, pattern: str, within_s: float = 300) -> str:
        """The group of a pattern in its output, once it is there."""
        deadline = time.monotonic() + within_s
        while not (found := re.search(pattern, "".join(self.output))):
            assert self.process.poll() is None, self.output
            assert time.monotonic() < deadline, (pattern, self.output)
            time.sleep(0.1)
        return found[found.re.groups and 1]

    def ended(self, within_s: float) -> int:
        """Its code, once it has ended by itself."""
        code = self.process.wait(within_s)
        self._reader.join(5)
        assert leftovers(self.mark) == []
        return code

    def end(self) -> None:
        """End it by Ctrl-C, where it has not ended by itself."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGINT)
            assert self.process.wait(60) in (0, 130), self.output
        self._reader.join(5)
        assert "Traceback" not in "".join(self.output)
        assert leftovers(self.mark) == []


def test_the_demo_starts_from_an_archive_and_restarts_its_exporter() -> None:
    demo = Running("--rate", "20", "--placements", "6")
    try:
        link = demo.said(r"live page (http\S+)")
        url, broker = demo.said(r"redis (redis://\S+)"), demo.said(r"kafka +(\S+),")
        page, _, token = link.partition("/login#token=")
        demo.said(r"\[2/.\] write an archive of the hours before  [\d.]+ s")
        commands = running(demo.mark)
        (exporter,) = (pid for pid, command in commands.items() if " exporter " in command)

        def rows() -> str:
            return httpx.get(f"{page}/table", headers={"authorization": f"Bearer {token}"}).text

        with redis.Redis.from_url(url, decode_responses=True) as client:
            deadline = time.monotonic() + 60
            while "flight.counted_since_ms" not in (
                row := client.hgetall(f"{NAMESPACE}:placement:{{pl-0000}}")
            ):
                assert time.monotonic() < deadline, row
                time.sleep(0.2)
            meta = client.hgetall(f"{NAMESPACE}:meta")
        began_ms, now_ms = int(row["flight.counted_since_ms"]), 1000 * time.time()
        assert now_ms - began_ms > 110 * 60_000, "two hours before, and the minutes of this test"
        assert int(row["flight.impressions"]) > int(row["1h.impressions"]) > 0
        assert int(row["flight.reach"]) > 0
        assert row["delivery.state"] == "on_track"
        assert meta["conversions_attributed"] != "0", "of touches that Kafka has not"
        assert "pl-0000" in rows()
        (place,) = (found[1] for one in commands.values() if (found := re.search(r"archive --to (\S+)", one)))
        assert check(store_of(place)).messages > 10_000
        first = KafkaInput(broker, ["audio-pixels"]).open("audio-pixels/0", 0)
        deadline = time.monotonic() + 30
        while (messages := first.read(1000)) is None:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        first.close()
        assert set(messages.values) == {b""}, "Kafka has nothing of the hours before"

        (flow,) = (pid for pid, command in commands.items() if " run --processes " in command)
        done = subprocess.run(
            [sys.executable, "-m", "flows.cli", "verify", "--since", "10m"],
            env=own_settings(flow), capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr
        found = re.match(
            r"read ([\d,]+) messages, ([\d,]+) of them in the archive; (\d+) final ", done.stdout
        )
        assert found is not None, done.stdout
        assert int(found[3]) > 6, "minutes from before the demo are compared"

        os.kill(exporter, signal.SIGKILL)
        demo.said(r"the exporter was killed \(SIGKILL\): started again", 30)
        deadline = time.monotonic() + 60
        while True:
            with suppress(httpx.TransportError):
                assert "pl-0000" in rows()
                break
            assert time.monotonic() < deadline
            time.sleep(0.2)
    finally:
        demo.end()


OUTAGE_S = 60


def test_producers_resume_after_an_outage_of_kafka_without_loss() -> None:
    demo = Running("--seconds", "130")
    try:
        url = demo.said(r"redis (redis://\S+)")
        demo.said(r"and its alert fires")
        (broker,) = (
            pid for pid, command in running(demo.mark).items() if "/tansu broker" in command.split("--")[0]
        )
        with redis.Redis.from_url(url, decode_responses=True) as client:

            def delivered(kind: str) -> int:
                keys = client.scan_iter(f"{NAMESPACE}:placement:{{{kind}-*")
                return sum(int(client.hget(key, "flight.impressions") or 0) for key in keys)

            time.sleep(5)
            os.kill(broker, signal.SIGSTOP)
            try:
                demo.said("the simulator's producer waits: Kafka has taken nothing for", 20)
                time.sleep(OUTAGE_S)
            finally:
                os.kill(broker, signal.SIGCONT)
            deadline, before = time.monotonic() + 30, {kind: delivered(kind) for kind in ("pl", "door")}
            demo.said("the simulator's producer sends again", 30)
            while any(delivered(kind) <= count for kind, count in before.items()):
                assert time.monotonic() < deadline, before
                time.sleep(0.5)
            while demo.process.poll() is None:
                with suppress(redis.RedisError):  # it ends
                    assert client.hget(f"{NAMESPACE}:meta", "silent") is None
                time.sleep(0.5)
        assert demo.ended(120) == 0, "".join(demo.output)  # equal to the simulator's ledger
    finally:
        demo.end()


def test_a_lost_feed_is_named_and_starts_no_trader_alert() -> None:
    demo = Running("--lose-feed", "20")
    try:
        url, link = demo.said(r"redis (redis://\S+)"), demo.said(r"live page (http\S+)")
        page, _, token = link.partition("/login#token=")
        manager = "" if MISSING else demo.said(r"(http://\S+)/#/alerts")
        demo.said("the simulator's producer has ended, as --lose-feed asks")
        told = demo.said(r"(.* \(platform\) have been silent since .*)", 240)
        assert (
            "this is the feed, not delivery. 40 placements are not judged; do not change bids by them."
            in told
        )
        with redis.Redis.from_url(url, decode_responses=True) as client:
            silent = json.loads(client.hget(f"{NAMESPACE}:meta", "silent") or "{}")
            names = client.zrange(f"{NAMESPACE}:index:placement", 0, -1)
            fields = ("delivery.judged", "delivery.unjudged_reason", "delivery.state")
            rows = {name: client.hmget(f"{NAMESPACE}:placement:{{{name}}}", fields) for name in names}
            changes = [change for _, change in client.xrange(f"{NAMESPACE}:alerts")]
        assert {unit.partition(":")[0] for unit in silent} == {"platform"}
        assert len(silent) == 5
        lost = {name: row for name, row in rows.items() if name.startswith("pl-")}
        assert {tuple(row[:2]) for row in lost.values()} == {("0", "feed_silent")}
        assert {row[0] for name, row in rows.items() if name not in lost} == {"1"}
        assert Counter(row[2] for row in lost.values()) == {"under": 1, "over": 1, "on_track": 38}
        fallen = [change["unit"] for change in changes if change.get("kind") == "feed"]
        assert sorted(fallen) == sorted(silent), "each once"
        assert {change.get("placement") for change in changes if change["to"] == "under"} == {STARVED}
        time.sleep(5)  # for an alert that may begin all the same
        if manager:
            firing = httpx.get(f"{manager}/api/v2/alerts").json()
            names_of = {(one["labels"]["alertname"], one["labels"].get("placement")) for one in firing}
            assert names_of == {
                ("AudiopixelFeedSilent", None),
                ("AudiopixelUnderDelivery", STARVED),  # it fired before, and goes on
                ("AudiopixelOverDelivery", AHEAD),
                ("AudiopixelBrandSafetyBreach", BREACHED),
            }
            assert {one["labels"].get("unit") for one in firing} - {None} == {
                unit.partition(":")[2] for unit in silent
            }
        plain = httpx.get(f"{page}/table", headers={"authorization": f"Bearer {token}"}).text
        assert "have been silent since" in plain
        assert plain.count("<td>not judged: feed silent, ") == 40
        bidder = Path(__file__).parents[3] / "examples" / "bidder.py"
        bids = subprocess.run(
            [sys.executable, str(bidder), url, "pl-0000", STARVED],
            capture_output=True, text=True, timeout=60, check=True,
        ).stdout  # fmt: skip
        assert bids.count("leave the bid as it is (the row is not judged: feed_silent)") == 2
    finally:
        demo.end()


class Seen(NamedTuple):
    """The state of a demo at a moment, as its services show it to clients.

    `states` are by placement, `changes` all of the stream, `firing` as Alertmanager's API tells them, `bids`
    what the sample reader of docs/bidders.md says.
    """

    states: dict[str, str]
    changes: list[dict[str, str]]
    firing: list[dict[str, Any]]
    bids: str = ""


@pytest.fixture(scope="module")
def seen() -> Seen:
    """A demo from when its alert has fired; ended by Ctrl-C."""
    process, mark = started()
    output: list[str] = []
    assert process.stdout is not None
    reader = threading.Thread(target=output.extend, args=(process.stdout,))
    reader.start()

    def address(pattern: str) -> str:
        deadline = time.monotonic() + 300
        while not (found := re.search(pattern, "".join(output))):
            assert process.poll() is None, output
            assert time.monotonic() < deadline, output
            time.sleep(0.1)
        return found[1]

    try:
        manager = "" if MISSING else address(r"(http://\S+)/#/alerts")
        with redis.Redis.from_url(address(r"redis (redis://\S+)"), decode_responses=True) as client:

            def look() -> Seen:
                names = client.zrange(f"{NAMESPACE}:index:placement", 0, -1)
                return Seen(
                    {
                        name: client.hget(f"{NAMESPACE}:placement:{{{name}}}", "delivery.state") or ""
                        for name in names
                    },
                    [fields for _, fields in client.xrange(f"{NAMESPACE}:alerts")],
                    httpx.get(f"{manager}/api/v2/alerts").json() if manager else [],
                )

            deadline = time.monotonic() + 120
            while not (len((now := look()).firing) > 2 or (MISSING and "under" in now.states.values())):
                assert process.poll() is None, output
                assert time.monotonic() < deadline, now
                time.sleep(0.2)
            time.sleep(2)  # for what may fire as well
            bidder = Path(__file__).parents[3] / "examples" / "bidder.py"
            command = [sys.executable, str(bidder), address(r"redis (redis://\S+)"), STARVED, "pl-9999"]
            bids = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
            return look()._replace(bids=bids.stdout)
    finally:
        process.send_signal(signal.SIGINT)
        assert process.wait(30) in (0, 130), output
        reader.join(5)
        assert "Traceback" not in "".join(output)
        assert leftovers(mark) == []


def test_redis_has_one_under_one_over_and_others_on_track(seen: Seen) -> None:
    planned = {name: state for name, state in seen.states.items() if not name.startswith("door-")}
    assert len(planned) == 40
    states = Counter(planned.values())
    assert (planned[STARVED], planned[AHEAD]) == ("under", "over")
    assert states == {"under": 1, "over": 1, "on_track": 38}
    assert {name for name, state in seen.states.items() if not state} <= {*seen.states} - {*planned}


def test_the_flow_alerts_only_about_the_starved_placement(seen: Seen) -> None:
    under = [change for change in seen.changes if change["to"] == "under"]
    assert {change["placement"] for change in under} == {STARVED}
    assert {change["campaign"] for change in under} == {CAMPAIGN}
    assert all(float(change["indicator"]) < 0.2 for change in under)


@pytest.mark.debian
@pytest.mark.skipif(MISSING, reason="needs apt-get install prometheus prometheus-alertmanager")
def test_exactly_the_three_expected_alerts_fire(seen: Seen) -> None:
    found = {(one["labels"]["alertname"], one["labels"].get("placement")) for one in seen.firing}
    assert found == {
        ("AudiopixelUnderDelivery", STARVED),
        ("AudiopixelOverDelivery", AHEAD),
        ("AudiopixelBrandSafetyBreach", BREACHED),
    }
    (alert,) = [one for one in seen.firing if one["labels"]["alertname"] == "AudiopixelUnderDelivery"]
    assert alert["labels"]["campaign"] == CAMPAIGN
    assert alert["status"]["state"] == "active"
    assert alert["annotations"]["summary"].startswith(f"{STARVED} of campaign {CAMPAIGN} has delivered ")


@pytest.mark.parametrize("after_s", [1.0, 3.0])
def test_ctrl_c_ends_a_demo_with_no_process_left_behind(after_s: float) -> None:
    process, mark = started()
    time.sleep(after_s)
    process.send_signal(signal.SIGINT)
    output, _ = process.communicate(timeout=30)
    assert process.returncode in (0, 130), output
    assert "Traceback" not in output
    assert leftovers(mark) == []


def test_a_killed_demo_takes_its_processes_along() -> None:
    process, mark = started("--rate", "2", "--placements", "4")  # a short past
    wanted = ["exporter", *([] if MISSING else ["--storage.tsdb.path", "--cluster.listen-address"])]
    deadline = time.monotonic() + 300
    while not all(one in " ".join(alive(mark)) for one in wanted):
        assert time.monotonic() < deadline, alive(mark)
        time.sleep(0.2)
    process.kill()
    process.wait(10)
    assert leftovers(mark, 15) == []


def test_each_firing_alert_is_one_escaped_line() -> None:
    firing = [Firing("AudiopixelOver", f"pl-{n}", "", f"[b]pl\x1b-{n}") for n in range(20)]

    told = [line.plain for line in lines(firing)]

    assert told[0] == "Over [b]pl\N{REPLACEMENT CHARACTER}-0"
    assert re.fullmatch(r"… and \d+ more alerts", told[-1])


def test_the_sample_reader_for_bidders_bids_up_for_the_starved_placement(seen: Seen) -> None:
    starved, nobody = seen.bids.splitlines()
    found = re.fullmatch(rf"{STARVED} bid 2\.00 x \(needs (\d+\.\d\d) x its present rate\)", starved)
    assert found is not None, starved
    assert float(found[1]) > 2
    assert nobody == "pl-9999 leave the bid as it is (state not known)"
