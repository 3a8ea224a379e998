"""The table in the terminal, over what the flow wrote."""

from __future__ import annotations

import os
import pty
import re
import signal
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from io import StringIO

import pytest
from board_support import RECEIVED, TRUTH, eventually, put_rows, python, replayed
from rich.cells import cell_len
from rich.console import Console

from connectors.embedded import EmbeddedValkey
from connectors.redis.client import connect
from flows.viewers.reader import RowsReader, Snapshot
from flows.viewers.top import COLUMNS, FIELDS, PLANNED, Column, age, name, percent, render

RUN = "from flows.viewers.top import run; from flows.settings import load; run(load(redis_url={!r}))"


@pytest.fixture(scope="module")
def valkey() -> Iterator[EmbeddedValkey]:
    with EmbeddedValkey() as server:
        replayed(server)
        yield server


@pytest.fixture(scope="module")
def snapshot(valkey: EmbeddedValkey) -> Snapshot:
    return board(valkey.url).refresh()


def board(url: str, namespace: str = "audiopixel:v1") -> RowsReader:
    return RowsReader(connect(url, timeout=timedelta(seconds=1)), namespace, FIELDS, interval=timedelta(0))


def one(placement: str, **fields: str) -> Snapshot:
    row = {"flight.impressions": "1234", **fields}
    return Snapshot(True, "", 9.0, {"flushed_ms": "8000"}, {"placement": {placement: row}})


def lines(snapshot: Snapshot, width: int = 120, height: int | None = None, later_s: float = 1.0) -> list[str]:
    out = StringIO()
    console = Console(file=out, width=width, color_system=None)
    console.print(render(snapshot, snapshot.read_s + later_s, width, height))
    return out.getvalue().splitlines()


def placements(shown: list[str]) -> list[str]:
    return [line.split()[0] for line in shown if line.startswith("pl-")]


def test_without_plans_the_busiest_come_first_with_their_true_numbers(snapshot: Snapshot) -> None:
    shown = lines(snapshot)
    counts = [int(TRUTH[placement]["flight.impressions"]) for placement in placements(shown)]
    assert len(counts) == len(snapshot.rows["placement"])
    assert counts == sorted(counts, reverse=True)
    truth = TRUTH[placements(shown)[0]]
    first = next(line for line in shown if line.startswith("pl-")).split()
    assert first[2:4] == [f"{int(truth['flight.impressions']):,}", f"{int(truth['flight.starts']):,}"]


def test_the_head_balances_received_with_what_became_of_it(snapshot: Snapshot) -> None:
    text = "\n".join(lines(snapshot))
    found = re.search(
        r"received ([\d,]+) = accepted ([\d,]+) \+ repeated ([\d,]+) \+ rejected ([\d,]+)", text
    )
    assert found is not None
    received, accepted, repeated, rejected = (int(number.replace(",", "")) for number in found.groups())
    assert received == RECEIVED == accepted + repeated + rejected
    reasons = re.search(r"rejected: (.*)", text)
    assert reasons is not None
    assert sum(map(int, re.findall(r"\d+", reasons[1]))) == rejected


@pytest.mark.parametrize("width", [40, 60, 80, 100, 120, 200])
def test_no_line_is_wider_than_the_terminal_and_numbers_stay_whole(snapshot: Snapshot, width: int) -> None:
    shown = lines(snapshot, width)
    assert max(cell_len(line) for line in shown) <= width
    assert not [line for line in shown if line.startswith("pl-") and "…" in line]
    assert "2,701" in next(line for line in shown if line.startswith("pl-000"))


def test_eighty_columns_hold_what_a_trader_watches_and_120_hold_all(snapshot: Snapshot) -> None:
    at_80, at_120 = (" ".join(lines(snapshot, width)[3:5]) for width in (80, 120))
    for word in (
        "placement",
        "impressions",
        "starts",
        "flight",
        "mature",
        "reach",
        "freq.",
        "repeated",
        "late",
    ):
        assert word in at_80
    for column in COLUMNS:
        assert all(word in at_120 for word in column.head.split()) == (column.field not in PLANNED)


def planned() -> Snapshot:
    """A row of each state, and one without a plan that is busier than all of them."""
    rows = {
        f"pl-{state}": {"flight.impressions": "100", "delivery.state": state, "delivery.indicator": indicator}
        for state, indicator in {
            "on_track": "1.0", "over": "1.2", "at_risk": "0.95", "ended_short": "0.99", "under": "0.667",
        }.items()
    }  # fmt: skip
    rows["pl-silent"] = {"delivery.state": "under", "delivery.indicator": "0"}
    rows["pl-worst"] = {"flight.impressions": "7", "delivery.state": "under", "delivery.indicator": "0.0304"}
    rows["pl-busy"] = {"flight.impressions": "9000"}
    return Snapshot(True, "", 9.0, {"flushed_ms": "8000"}, {"placement": rows})


def test_bad_delivery_comes_before_all_that_is_busy_the_worst_first() -> None:
    order = ["silent", "worst", "under", "ended_short", "at_risk", "over", "busy", "on_track"]
    assert placements(lines(planned())) == [f"pl-{name}" for name in order]


@pytest.mark.parametrize("width", [60, 80, 120])
def test_where_there_are_plans_each_row_says_its_state_and_its_indicator(width: int) -> None:
    text = "\n".join(lines(planned(), width))
    assert re.search(r"pl-worst .*under +0\.030 ", text)
    assert re.search(r"pl-ended_short .*ended short +0\.990 ", text)
    assert re.search(r"pl-busy .*– +– +9,000", text)


def test_bad_states_are_coloured() -> None:
    out = StringIO()
    Console(file=out, width=80, force_terminal=True, color_system="standard").print(render(planned(), 9, 80))
    assert "\x1b[1;31munder" in out.getvalue()
    assert "\x1b[32mon track" in out.getvalue()


@pytest.mark.parametrize("height", [8, 24, 60, 103, 104, 105, 200])
def test_it_fits_the_height_and_says_how_many_more_there_are(snapshot: Snapshot, height: int) -> None:
    shown = lines(snapshot, 80, height)
    assert len(shown) <= height
    assert len(placements(shown)) >= min(10, height - 7)
    more = re.search(r"^… and ([\d,]+) more$", "\n".join(shown), re.MULTILINE)
    total = len(placements(shown)) + (int(more[1]) if more else 0)
    assert total == len(snapshot.rows["placement"])


def test_a_null_is_a_dash_not_a_zero() -> None:
    shown = lines(one("pl-1"))
    (row,) = (line for line in shown if line.startswith("pl-1"))
    assert row.split() == ["pl-1", "–", "1,234", *["–"] * 9]
    assert "watermark unknown" in shown[0]


def test_an_old_flush_is_seen_to_be_old(snapshot: Snapshot) -> None:
    assert "flushed 35 min ago" in "\n".join(lines(snapshot, later_s=2_100))


def test_finality_is_shown_with_its_day_unless_that_is_today() -> None:
    assert (
        "final through 1970-01-01 00:01 UTC"
        in lines(one("pl-1", final_through_ms="60000"), later_s=90_000)[0]
    )
    assert "final through 00:01 UTC" in lines(one("pl-1", final_through_ms="60000"), later_s=90)[0]
    assert "final through –" in lines(one("pl-1", final_through_ms="0"))[0]


def test_with_redis_away_the_last_numbers_stay_below_a_line_that_says_so() -> None:
    with EmbeddedValkey() as server:
        put_rows(server.url, "t", {"pl-1": {"flight.impressions": 7}})
        shared = board(server.url, "t")
        shared.refresh()
        server.kill()
        shown = lines(shared.refresh())
    assert shown[0].startswith("numbers of 1.0 s ago: Redis is unavailable (connection)")
    assert placements(shown) == ["pl-1"]


def test_before_any_flow_has_written_it_says_so(valkey: EmbeddedValkey) -> None:
    assert lines(board(valkey.url, "nobody").refresh()) == [
        "no flow has written to this namespace of Redis yet"
    ]


def test_a_name_cannot_give_orders_to_the_terminal() -> None:
    (row,) = (line for line in lines(one("pl-\x1b[2J\x07\n\r\u202e[bold]x")) if line.startswith("pl-"))
    assert row.startswith("pl-\ufffd[2J\ufffd\ufffd\ufffd\ufffd[bold]x ")


@pytest.mark.parametrize("column", COLUMNS[1:], ids=lambda column: column.field)
@pytest.mark.parametrize("held", ["noon", "", "1e999999", "9" * 5000])
def test_what_is_no_number_spoils_its_own_cell_alone(column: Column, held: str) -> None:
    damaged = one(
        "breakfast-uk", **{"flight.starts": "7654"} | {column.field: held, "final_through_ms": held}
    )
    damaged.rows["placement"]["drive-time"] = {"flight.impressions": "4321"}  # type: ignore[index]
    assert any("drive-time" in line and "4,321" in line for line in lines(damaged, width=400))
    assert any("breakfast-uk" in line for line in lines(damaged, width=400))
    accounted = replace(damaged, accounts={"p": {"received": held}})
    assert any("received" in line for line in lines(accounted, width=400))


def test_long_names_are_cut_by_cells_not_letters() -> None:
    assert name("a" * 28) == "a" * 28
    assert name("a" * 29) == "a" * 27 + "…"
    assert cell_len(name("広告" * 20)) <= 28


def test_less_than_all_never_reads_100_percent() -> None:
    shown = [percent(text) for text in ("0", "0.9996", "0.999999", "1", "1.25")]
    assert shown == ["0.0%", "99.9%", "99.9%", "100.0%", "125.0%"]


def test_ages_are_in_the_unit_that_a_person_would_use() -> None:
    shown = [age(seconds) for seconds in (-3, 0.44, 12, 119, 2_100, 18_000, 31_536_000)]
    assert shown == ["0.0 s", "0.4 s", "12 s", "119 s", "35 min", "5 h", "365 d"]


def test_into_a_pipe_it_prints_once_plain_and_whole(valkey: EmbeddedValkey, snapshot: Snapshot) -> None:
    with python(RUN.format(valkey.url), stdout=subprocess.PIPE) as process:
        out = process.communicate(timeout=30)[0].decode()
    assert process.returncode == 0
    assert "\x1b" not in out
    assert sorted(placements(out.splitlines())) == sorted(snapshot.rows["placement"])
    assert "consent" in out


def test_in_a_terminal_it_lives_until_ctrl_c_and_leaves_the_screen_as_it_was(valkey: EmbeddedValkey) -> None:
    ours, theirs = pty.openpty()
    screen = b""

    def read() -> bytes:
        nonlocal screen
        try:
            screen += os.read(ours, 65_536)
        except OSError:  # how Linux says that the other side is closed
            screen += b"(closed)"
        return screen

    with python(RUN.format(valkey.url), stdin=theirs, stdout=theirs, stderr=theirs) as process:
        os.close(theirs)
        eventually(lambda: read().count(b"impressions") >= 2)
        process.send_signal(signal.SIGINT)
        eventually(lambda: read().endswith(b"(closed)"))
        assert process.wait(timeout=10) == 0
    os.close(ours)
    assert b"Traceback" not in screen
    assert screen.index(b"\x1b[?1049h") < screen.index(b"\x1b[?1049l")
