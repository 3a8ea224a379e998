"""The table in the terminal, over what the flow wrote."""

from __future__ import annotations

import os
import pty
import re
import select
import signal
import struct
import subprocess
import termios
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, timedelta
from fcntl import ioctl
from io import StringIO

import pytest
from board_support import RECEIVED, TRUTH, eventually, put_rows, python, replayed
from rich.cells import cell_len
from rich.console import Console
from typer.testing import CliRunner

from connectors.embedded import EmbeddedValkey
from connectors.redis.client import connect
from flows.cli.commands import app
from flows.viewers.columns import BY_KEY, COLUMNS, FIELDS, Column, name_of
from flows.viewers.desk import Desk
from flows.viewers.reader import RowsReader, Snapshot
from flows.viewers.table import lay_out, ordered, sort_words
from flows.viewers.top_lines import render
from flows.viewers.words import amount, left, moment, percent, since, span

RUN = "from flows.viewers.top import run; from flows.settings import load; run(load(redis_url={!r}){})"
NOW_S = 1_764_086_400.0  # 25 Nov 2025, 16:00 UTC


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


def snapshot_of(placement: str, **fields: str) -> Snapshot:
    row = {"flight.impressions": "1234", **fields}
    return Snapshot(True, "", 9.0, {"flushed_ms": "8000", "judged": "1"}, {"placement": {placement: row}})


def lines(snapshot: Snapshot, width: int = 120, height: int | None = None, later_s: float = 1.0) -> list[str]:
    out = StringIO()
    console = Console(file=out, width=width, color_system=None)
    console.print(render(snapshot, snapshot.read_s + later_s, width, height, zone=UTC))
    return out.getvalue().splitlines()


def placements(shown: list[str]) -> list[str]:
    found = (re.search(r"\bpl-\w+", line) for line in shown)
    return [match[0] for match in found if match]


# Numbers


def test_without_plans_the_busiest_come_first_with_their_true_numbers(snapshot: Snapshot) -> None:
    shown = lines(snapshot)
    counts = [int(TRUTH[placement]["flight.impressions"]) for placement in placements(shown)]
    assert len(counts) == len(snapshot.rows["placement"])
    assert counts == sorted(counts, reverse=True)
    first = next(line for line in shown if "pl-" in line)
    assert f" {counts[0]:,} " in f"{first} "


def test_the_head_balances_received_with_its_outcomes(snapshot: Snapshot) -> None:
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


def test_a_null_is_a_dash_not_a_zero() -> None:
    shown = lines(snapshot_of("pl-1"))
    (row,) = (line for line in shown if "pl-1" in line)
    assert row.split()[:3] == ["no", "plan", "pl-1"]
    assert set(row.split()[3:]) == {"–", "1,234"}
    assert "watermark unknown" in shown[0]


@pytest.mark.parametrize("column", COLUMNS[2:], ids=lambda column: column.key)
@pytest.mark.parametrize("held", ["noon", "", "1e999999", "9" * 5000, "nan"])
def test_an_invalid_number_spoils_only_its_own_cell(column: Column, held: str) -> None:
    damaged = snapshot_of("breakfast-uk", **dict.fromkeys(FIELDS, held))
    damaged.rows["placement"]["drive-time"] = {"flight.impressions": "4321"}  # type: ignore[index]
    for sort in (column.key, f"-{column.key}", ""):
        desk = Desk.from_scopes(damaged.rows, 0)
        assert {row.id for row in ordered(desk.rows["placement"], sort, desk)} == {
            "breakfast-uk",
            "drive-time",
        }
    shown = lines(damaged, width=400)
    assert any("drive-time" in line and "4,321" in line for line in shown)
    assert any("breakfast-uk" in line for line in shown)
    accounted = replace(damaged, accounts={"p": {"received": held}})
    assert any("received" in line for line in lines(accounted, width=400))


# Order and columns


def planned() -> Snapshot:
    """A row of each state, priced, and one without a plan that is busier than all of them."""
    rows = {
        f"pl-{state}": {
            "flight.impressions": "100",
            "delivery.booked": "1000",
            "delivery.delivered": "100",
            "delivery.state": state,
            "delivery.judged": "1",
            "delivery.indicator": indicator,
            "delivery.short_by": short,
            "delivery.cpm": "10",
            "delivery.currency": "GBP",
            "delivery.at_stake": stake,
            "delivery.at_stake_end": "7.25",
            "delivery.end_ms": str(int(1000 * NOW_S) + 201_600_000),
            "campaign_id": "spring",
        }
        for state, indicator, short, stake in (
            ("on_track", "1.0", "0", "0"),
            ("over", "1.2", "0", "0"),
            ("at_risk", "0.95", "5", "0.05"),
            ("ended_short", "0.99", "50000", "500"),
            ("under", "0.40", "60", "0.6"),
        )
    }
    rows["pl-large"] = rows["pl-under"] | {
        "delivery.indicator": "0.88",
        "delivery.short_by": "9000",
        "delivery.at_stake": "90",
    }
    rows["pl-dear"] = rows["pl-under"] | {"delivery.short_by": "5000", "delivery.at_stake": "200"}
    rows["pl-blocked"] = rows["pl-on_track"] | {"flight.blocked_impressions": "12"}
    rows["pl-busy"] = {"flight.impressions": "9000"}
    meta = {"flushed_ms": str(int(1000 * NOW_S) - 1000), "judged": "1"}
    meta["watermark_ms"] = str(int(1000 * NOW_S) - 11_000)
    campaign = {
        "spring": {
            "delivery.state": "under",
            "delivery.judged": "1",
            "delivery.short_by": "14060",
            "delivery.currency": "GBP",
            "delivery.at_stake": "790.65",
        }
    }
    return Snapshot(True, "", NOW_S - 1, meta, {"placement": rows, "campaign": campaign})


def test_top_orders_by_blocked_content_then_money_at_stake() -> None:
    order = ["blocked", "dear", "large", "under", "at_risk", "over", "on_track", "ended_short", "busy"]
    assert placements(lines(planned(), 200)) == [f"pl-{name}" for name in order]


def test_rows_without_prices_are_ordered_by_shortfall() -> None:
    bare = planned()
    for row in bare.rows["placement"].values():
        for name in ("delivery.cpm", "delivery.currency", "delivery.at_stake"):
            row.pop(name, None)  # type: ignore[attr-defined]
    bare.rows["campaign"]["spring"].pop("delivery.currency")  # type: ignore[attr-defined]
    assert placements(lines(bare, 200))[1:4] == ["pl-large", "pl-dear", "pl-under"]


def test_every_row_shows_shortfall_money_at_stake_and_end() -> None:
    text = "\n".join(lines(planned(), 200))
    assert re.search(r"under +pl-dear +spring +200.00 +7.25 +40 % +5,000 +2 d 8 h ", text)
    assert re.search(r"⊘ blocked 12, on track +pl-blocked ", text)
    head, units = lines(planned(), 200)[4:6]
    assert re.search("state +placement +campaign +at stake +by the end +pacing +short by +ends in", head)
    assert re.search("GBP +% +impressions", units)


def test_a_campaign_sums_its_placements_money_at_stake() -> None:
    desk = Desk.from_scopes(planned().rows, 1000 * NOW_S)
    (row,) = desk.rows["campaign"]
    assert row.stake == 790.65
    layout, (cells,) = lay_out([row], desk, "campaign", 200)
    assert dict(zip((column.key for column in layout.columns), cells, strict=True))["stake"] == "790.65"


def test_apps_have_a_table_of_their_own() -> None:
    rows = {**planned().rows, "app": {"an app": {"flight.impressions": "900"}}}
    table = render(replace(planned(), rows=rows), NOW_S, 200, scope="app").renderables
    assert re.search("an app +.*900", str(table[-1]))


@pytest.mark.parametrize("sort", [f"{sign}{column.key}" for column in COLUMNS for sign in ("", "-")])
def test_every_column_sorts_both_ways_with_missing_values_last(sort: str) -> None:
    desk = Desk.from_scopes(planned().rows, 1000 * NOW_S)
    value = BY_KEY[sort.removeprefix("-")].value
    values = [value(row) for row in ordered(desk.rows["placement"], sort, desk)]
    known = [one for one in values if one == one]
    assert values[: len(known)] == known
    assert known == sorted(known, reverse=sort.startswith("-"))  # type: ignore[type-var]
    assert sort_words(sort)


def test_a_filter_keeps_rows_with_every_word_in_id_labels_or_state() -> None:
    for words, ids, count in (
        (("spring", "at risk"), ["pl-at_risk"], "1 of 9 placements with spring at risk"),
        (("no plan",), ["pl-busy"], "1 of 9 placements with no plan"),
        (("nothing",), [], "0 of 9 placements with nothing"),
    ):
        out = [str(line) for line in render(planned(), NOW_S, 200, words=words).renderables]
        assert placements(out) == ids
        assert any(line.startswith(f"{count} · needs attention first") for line in out)


def test_bad_states_are_coloured() -> None:
    out = StringIO()
    table = render(planned(), NOW_S, 120)
    Console(file=out, width=120, force_terminal=True, color_system="standard").print(table)
    assert "\x1b[1;31munder" in out.getvalue()
    assert "\x1b[32mon track" in out.getvalue()
    assert "\x1b[1;31m⊘ blocked" in out.getvalue()


@pytest.mark.parametrize("width", [40, 60, 80, 100, 120, 200])
def test_no_line_is_wider_than_the_terminal_and_numbers_stay_whole(snapshot: Snapshot, width: int) -> None:
    shown = lines(snapshot, width)
    assert max(cell_len(line) for line in shown) <= width
    assert not [line for line in shown if "pl-" in line and "…" in line]


def test_eighty_columns_show_the_main_fields_and_wide_screens_all() -> None:
    at_80, at_600 = (" ".join(lines(planned(), width)[4:5]) for width in (80, 600))
    for word in ("state", "placement", "pacing", "by the end", "ends in", "at stake"):
        assert word in at_80
    assert all(column.title in at_600 for column in COLUMNS)


@pytest.mark.parametrize("height", [8, 24, 60, 103, 104, 105, 200])
def test_top_fits_the_height_and_counts_hidden_rows(snapshot: Snapshot, height: int) -> None:
    shown = lines(snapshot, 80, height)
    assert len(shown) <= height
    assert len(placements(shown)) >= min(10, height - 8)
    more = re.search(r"^… and ([\d,]+) more$", "\n".join(shown), re.MULTILINE)
    total = len(placements(shown)) + (int(more[1]) if more else 0)
    assert total == len(snapshot.rows["placement"])


# Time and trouble


def test_an_old_flush_is_shown_as_unfit_for_bids(snapshot: Snapshot) -> None:
    text = "\n".join(lines(snapshot, later_s=2_100))
    assert "stalled: nothing written for 35 min" in text
    assert re.search(
        r"^Delivery is not judged since .* \(35 min ago\): the flow writes nothing\. Do not", text, re.M
    )
    judged = {
        "judged": "1",
        "unjudged_since_ms": "",
        "unjudged_reason": "",
    }  # the log itself is of another year
    fresh = replace(snapshot, meta=snapshot.meta | judged)
    assert "not judged" not in "\n".join(lines(fresh, later_s=1))


def test_an_absent_redis_differs_from_an_idle_flow(snapshot: Snapshot) -> None:
    away = replace(snapshot, up=False, error="Redis is unavailable (connection)")
    text = "\n".join(lines(away, later_s=2_100))
    told = r"^Delivery is not judged since .* \(35 min ago\): Redis does not answer\. Do not"
    assert re.search(told, text, re.M)
    assert "the flow writes nothing" not in text


def test_metas_judging_fields_are_shown_in_words() -> None:
    since_ms = str(int(1000 * NOW_S) - 120_000)
    meta = planned().meta | {"judged": "0", "unjudged_since_ms": since_ms, "unjudged_reason": "rejecting"}
    text = "\n".join(lines(replace(planned(), meta=meta), 200))
    told = "Delivery is not judged since 25 Nov, 15:58 UTC (2 min ago): more pixels are rejected than chance"
    assert told in text
    assert "not judged" not in "\n".join(lines(planned()))


@pytest.mark.parametrize("absent", ["unjudged_since_ms", "unjudged_reason", "judged"])
def test_metas_absent_fields_are_never_taken_for_judged(absent: str) -> None:
    meta = planned().meta | {"judged": "0", "unjudged_since_ms": "1", "unjudged_reason": "rejecting"}
    meta.pop(absent)
    assert "Delivery is not judged since " in "\n".join(lines(replace(planned(), meta=meta), 200))


def test_a_row_that_does_not_say_that_it_is_judged_is_not() -> None:
    unsaid = planned()
    del unsaid.rows["placement"]["pl-under"]["delivery.judged"]  # type: ignore[attr-defined]
    (row,) = (line for line in lines(unsaid, 200) if "pl-under" in line)
    assert row.startswith("not judged")


def test_a_moment_has_date_and_zone_and_another_years_year() -> None:
    ms = 1000 * NOW_S
    assert moment(ms, ms, UTC) == "25 Nov, 16:00 UTC"
    assert moment(ms, ms + 366 * 86_400_000, UTC) == "25 Nov 2025, 16:00 UTC"
    assert since(ms, ms + 240_000, UTC) == "25 Nov, 16:00 UTC (4 min ago)"
    assert moment(0, ms, UTC) == moment(1e300, ms, UTC) == moment(float("nan"), ms, UTC) == "–"
    assert "final through 1 Jan, 00:01 UTC" in "\n".join(
        lines(snapshot_of("pl-1", final_through_ms="60000"), later_s=90)
    )


def test_without_redis_the_last_numbers_stay_below_a_notice() -> None:
    with EmbeddedValkey() as server:
        put_rows(server.url, "t", {"pl-1": {"flight.impressions": 7}})
        shared = board(server.url, "t")
        shared.refresh()
        server.kill()
        shown = lines(replace(shared.refresh(), meta={"flushed_ms": "8000"}))
    assert shown[0].startswith("numbers of 1.0 s ago: Redis is unavailable (connection)")
    assert placements(shown) == ["pl-1"]


def test_before_any_flow_has_written_it_says_so(valkey: EmbeddedValkey) -> None:
    assert lines(board(valkey.url, "nobody").refresh()) == [
        "no flow has written to this namespace of Redis yet"
    ]


# Texts


def test_a_name_cannot_give_orders_to_the_terminal() -> None:
    (row,) = (line for line in lines(snapshot_of("pl-\x1b[2J\x07\n\r\u202e[bold]x")) if "pl-" in line)
    assert "pl-\ufffd[2J\ufffd\ufffd\ufffd\ufffd[bold]x " in row


def test_long_names_are_cut_by_cells_not_letters() -> None:
    assert name_of("a" * 28) == "a" * 28
    assert name_of("a" * 29) == "a" * 27 + "…"
    assert cell_len(name_of("広告" * 20)) <= 28


def test_numbers_are_written_as_on_the_page() -> None:
    assert [percent(value) for value in (0.0, 0.994, 1.19)] == ["0 %", "99 %", "119 %"]
    assert [amount(value) for value in (0.0, 12.5, 1234.5)] == ["0", "12.50", "1,234"]
    assert [span(value) for value in (-3, 0.44, 12, 119, 2_100, 18_000, 31_536_000)] == [
        "0.0 s", "0.4 s", "12 s", "119 s", "35 min", "5 h", "365 d",
    ]  # fmt: skip
    assert [left(value) for value in (-1, 720, 29_520, 201_600)] == [
        "0 min",
        "12 min",
        "8 h 12 min",
        "2 d 8 h",
    ]


# The command


def test_top_in_a_pipe_prints_plain_text_once(valkey: EmbeddedValkey, snapshot: Snapshot) -> None:
    code = RUN.format(valkey.url, "") + "; import sys; print('numba' in sys.modules)"
    with python(code, stdout=subprocess.PIPE) as process:
        out = process.communicate(timeout=60)[0].decode()
    assert process.returncode == 0
    assert "\x1b" not in out
    assert sorted(placements(out.splitlines())) == sorted(snapshot.rows["placement"])
    assert out.splitlines()[-1] == "False"


def test_ten_thousand_rows_take_less_than_a_second_of_processor() -> None:
    row = dict.fromkeys(FIELDS, "1234.5") | {
        "delivery.state": "under",
        "delivery.judged": "1",
        "delivery.currency": "GBP",
    }
    with EmbeddedValkey() as server:
        put_rows(
            server.url, "audiopixel:v1", {f"pl-{at}": row | {"delivery.at_stake": at} for at in range(10_000)}
        )
        code = (
            RUN.format(server.url, ", once=True")
            + "; import time, sys; print(time.process_time(), file=sys.stderr)"
        )
        with python(code, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
            out, told = process.communicate(timeout=120)
    shown = placements(out.decode().splitlines())
    assert len(shown) == 10_000
    assert shown[0] == "pl-9999"
    assert float(told.decode().split()[-1]) < 3.0  # 1.0 on a quiet machine, start-up included


@pytest.fixture(scope="module")
def desk_server() -> Iterator[EmbeddedValkey]:
    with EmbeddedValkey() as server:
        put_rows(server.url, "audiopixel:v1", planned().rows["placement"])
        yield server


@pytest.mark.parametrize(
    ("options", "ids"),
    [
        (["--sort", "short"], ["ended_short", "large"]),
        (["--sort", "pacing"], ["dear", "under"]),
        (["--sort", "pacing", "--reverse"], ["over", "blocked"]),
        (["--filter", "SPRING dear"], ["dear"]),
        (["--campaigns"], []),
    ],
)
def test_flags_choose_rows_and_their_order(
    desk_server: EmbeddedValkey, monkeypatch: pytest.MonkeyPatch, options: list[str], ids: list[str]
) -> None:
    monkeypatch.setenv("AUDIOPIXEL_REDIS_URL", desk_server.url)
    printed = CliRunner().invoke(app, ["top", "--once", *options])
    assert printed.exit_code == 0, printed.output
    found = placements(printed.output.splitlines())
    assert found[: len(ids)] == [f"pl-{name}" for name in ids]
    assert bool(found) == bool(ids)


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["--apps", "--campaigns"], "three tables"),
        (["--all"], "--all goes with --once"),
        (["--reverse"], "--reverse goes with --sort"),
        (["--sort", "spark"], "--sort takes one of state, id, campaign, stake"),
    ],
)
def test_flags_that_do_not_fit_end_with_2(options: list[str], told: str) -> None:
    asked = CliRunner().invoke(app, ["top", *options])
    assert asked.exit_code == 2
    assert told in asked.output


def test_help_names_every_column_to_sort_by() -> None:
    text = CliRunner().invoke(app, ["top", "--help"], env={"COLUMNS": "2000"}).output
    assert f"{', '.join(BY_KEY)}." in " ".join(text.split())


def test_once_ends_with_1_where_redis_refuses_to_read() -> None:
    with EmbeddedValkey() as server:
        connect(server.url, timeout=timedelta(seconds=1)).acl_setuser(
            "default",
            enabled=True,
            nopass=True,
            reset_keys=True,
            keys=["none"],
            commands=["+ping", "+info", "+hello"],
        )
        printed = CliRunner().invoke(app, ["top", "--once"], env={"AUDIOPIXEL_REDIS_URL": server.url})
    assert printed.exit_code == 1
    assert "permission" in printed.output


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_in_a_terminal_it_redraws_until_a_signal_and_leaves_the_screen_as_it_was(
    desk_server: EmbeddedValkey, number: signal.Signals
) -> None:
    ours, theirs = pty.openpty()
    ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 120, 0, 0))
    drawn = b""

    def comes(text: bytes) -> bool:
        nonlocal drawn
        while select.select([ours], [], [], 0.05)[0]:
            try:
                drawn += os.read(ours, 65_536)
            except OSError:  # how Linux says that the other side is closed
                break
        return text in drawn

    with python(RUN.format(desk_server.url, ""), stdin=theirs, stdout=theirs, stderr=theirs) as process:
        os.close(theirs)
        eventually(lambda: comes(b"9 placements"), 90)
        put_rows(desk_server.url, "audiopixel:v1", {f"pl-{number.name}": {"flight.impressions": 7}})
        eventually(lambda: comes(f"pl-{number.name}".encode()), 60)
        process.send_signal(number)
        eventually(lambda: comes(b"\x1b[?1049l"), 60)
        assert process.wait(timeout=60) == 0
        connect(desk_server.url, timeout=timedelta(seconds=1)).delete(
            f"audiopixel:v1:placement:{{pl-{number.name}}}"
        )
    assert b"Traceback" not in drawn
    os.close(ours)


# Sources


def test_each_source_process_has_a_line_troubled_ones_first() -> None:
    def process(name: str, updated_ms: int, **more: str) -> dict[str, str]:
        counts = {"read": "1450", "pixels": "1250", "not_ours": "180", "rejected": "20", "behind": "3"}
        return {"source": name, "updated_ms": str(updated_ms), "waiting": "0", **counts, **more}

    rows = {
        "well": process("player", 9_000),
        "waits": process("avro", 9_000, waiting="2"),
        "away": process("adserver\x1b[31m", -11_000),
    }
    shown = [line for line in lines(replace(snapshot_of("p"), sources=rows)) if line.startswith("source ")]
    sums = "3 behind · read 1,450 = pixels 1,250 + not ours 180 + rejected 20"
    assert shown[0].startswith("source adserver")
    assert "no report for" in shown[0]
    assert "\x1b" not in shown[0]
    assert shown[1:] == [f"source avro: 2 partitions wait for a schema · {sums}", f"source player: {sums}"]
    unsaid = process("player", 9_000)
    del unsaid["waiting"], unsaid["rejected"]
    (line,) = (line for line in lines(replace(snapshot_of("p"), sources={"p": unsaid})) if "player" in line)
    assert line.startswith("source player: – partitions wait for a schema")
    assert line.endswith("+ rejected –")
    many = lines(replace(snapshot_of("p"), sources={str(n): process(f"s{n}", 9_000) for n in range(9)}))
    assert sum(line.startswith("source s") for line in many) == 5
    assert "… and 4 more processes of sources" in many


def test_the_figures_of_sources_are_read_from_redis(valkey: EmbeddedValkey) -> None:
    client = connect(valkey.url, timeout=timedelta(seconds=1))
    client.hset("audiopixel:v1:sources", mapping={"source-player@host-1": "9000", "gone": "1"})
    client.hset("audiopixel:v1:source:{source-player@host-1}", mapping={"source": "player", "read": "5"})
    try:
        assert board(valkey.url).refresh().sources == {
            "source-player@host-1": {"source": "player", "read": "5"}
        }
    finally:
        client.delete("audiopixel:v1:sources", "audiopixel:v1:source:{source-player@host-1}")
