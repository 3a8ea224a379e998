"""The lines of `audiopixel top`: placements, campaigns, creatives and apps, those that need attention first,
below the freshness of the numbers.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from datetime import tzinfo
from typing import Final

from rich.console import Group
from rich.text import Text

from flows.model.catalogue.fields import SHOWN
from flows.model.freshness import FLUSH_STALE_S
from flows.shown import LINE, shown
from flows.viewers.collectors import STALE_MS
from flows.viewers.desk import Desk, Row
from flows.viewers.reader import Snapshot
from flows.viewers.silence import sentences, silence_of
from flows.viewers.table import GAP, Layout, lay_out, ordered, sort_words
from flows.viewers.words import NULL, amount, integer, moment, number, reason, since, span, whole

SCOPES: Final = SHOWN

_SLOW_S: Final = 5.0
_OLD_S: Final = 300.0
"""Ages of the last flush and of the watermark, in s, above which the page, too, shows `slow` and `behind`."""
_HEAD_LINES: Final = 2
_TIGHT: Final = 30
"""The height of a terminal, in lines, below which one more placement replaces the reasons of rejections."""
_MAX_SOURCE_LINES: Final = 5
"""The most lines about processes of sources."""
STYLES: Final = {
    **dict.fromkeys(("under", "ended_short"), "bold red"),
    "at_risk": "yellow",
    "over": "blue",
    **dict.fromkeys(("on_track", "complete"), "green"),
    **dict.fromkeys(("warming_up", "paused", "not_started", "none", "unjudged"), "dim"),
    **dict.fromkeys(("unknown_before", "ended_unknown"), "dim"),
}
BLOCKED: Final = "bold red"
_BALANCE: Final = ("received", "accepted", "repeated")
_REJECTED: Final = "rejected."
_COUNTED: Final = (*_BALANCE, _REJECTED)


def render(
    snapshot: Snapshot,
    now_s: float,
    width: int,
    height: int | None = None,
    scope: str = "placement",
    sort: str = "",
    words: Sequence[str] = (),
    zone: tzinfo | None = None,
) -> Group:
    """The table below its lines of state, in `width` columns and `height` lines; None shows all rows.

    Args:
        snapshot: a reading of at least `flows.viewers.columns.FIELDS`.
        now_s: wall clock, epoch s.
        scope: one of `SCOPES`.
        sort: an order of `flows.viewers.table.ordered`.
        words: words in lower case that each shown row has in its id, its labels or its state.
        zone: the zone of the reader's clock; None: this machine's.
    """
    desk = Desk.from_scopes(snapshot.rows, 1000 * now_s)
    above = state(snapshot, now_s, zone)
    if height is not None and height < _TIGHT and snapshot.flushed_s is not None:
        del above[-1]
    total = len(desk.rows[scope])
    if not total:
        return Group(*above)
    rows = ordered((row for row in desk.rows[scope] if row.matches(words)), sort, desk)
    count = f"{len(rows):,} of {total:,} {scope}s with {' '.join(words)}" if words else f"{total:,} {scope}s"
    above.append(_line(f"{count} · {sort_words(sort)} · {sums(rows, desk)}", "bold"))
    first = rows
    if height is not None and len(rows) > (room := max(1, height - len(above) - _HEAD_LINES)):
        first = rows[: max(1, room - 1)]
    layout, cells = lay_out(first, desk, scope, width)
    lines = [
        Text(head.rstrip(), "bold" if not line_number else "dim", no_wrap=True, overflow="crop")
        for line_number, head in enumerate(layout.heads(desk, scope))
    ]
    lines += [styled(layout, row, line) for row, line in zip(first, cells, strict=True)]
    rest = len(rows) - len(first)
    below = [_line(f"… and {rest:,} more", "dim")] if rest else []
    return Group(*above, *lines, *below)


def styled(layout: Layout, row: Row, cells: Sequence[str]) -> Text:
    """A row's line, its state and its pacing coloured."""
    greyed = "dim" if row.state == "unjudged" else ""
    line = Text(layout.line(cells).rstrip(), greyed, no_wrap=True, overflow="crop")
    style, column_start = STYLES[row.state], 0
    for column, width in zip(layout.columns, layout.widths, strict=True):
        if column.key in ("state", "pacing"):
            line.stylize(
                BLOCKED if row.blocked > 0 and column.key == "state" else style,
                column_start,
                column_start + width,
            )
        column_start += width + GAP
    return line


# State


def verdict(snapshot: Snapshot, now_s: float) -> tuple[str, str]:
    """The freshness of the numbers in the words of the page, and a style for it."""
    if not snapshot.up:
        age_words = f"numbers of {span(now_s - snapshot.read_s)} ago" if snapshot.read_s else "no numbers yet"
        return f"{age_words}: {snapshot.error}", "bold red"
    if snapshot.flushed_s is None:
        return "no flow has written to this namespace of Redis yet", "yellow"
    age_s = now_s - snapshot.flushed_s
    if age_s > _SLOW_S:
        word, style = ("stalled", "bold red") if age_s > FLUSH_STALE_S else ("slow", "yellow")
        return f"{word}: nothing written for {span(age_s)}", style
    behind_s = 0.0 if snapshot.watermark_s is None else now_s - snapshot.watermark_s
    if behind_s > _OLD_S:
        return f"behind: numbers of {span(behind_s)} ago", "yellow"
    silent = silence_of(snapshot).count
    if silent:
        return f"live, but {silent:,} feed{'s are' if silent > 1 else ' is'} silent", "yellow"
    return "live", "green"


def unjudged(snapshot: Snapshot, now_s: float, zone: tzinfo | None = None) -> str | None:
    """The reason for which delivery is not judged now, and since when; None if it is."""
    why = snapshot.unjudged_at(now_s)
    if why is None:
        return None
    since_words = since(1000 * why.since_s, 1000 * now_s, zone)
    return (
        f"Delivery is not judged since {since_words}: {reason(why.reason)}. "
        "Do not change bids by these numbers."
    )


def state(snapshot: Snapshot, now_s: float, zone: tzinfo | None = None) -> list[Text]:
    """Lines on the freshness of the numbers, and on the fate of everything received."""
    words, style = verdict(snapshot, now_s)
    if snapshot.flushed_s is None:
        return [_line(words, style)]
    lines = []
    if not snapshot.up:
        lines.append(_line(words, style))
        words, style = "", ""
    if (banner := unjudged(snapshot, now_s, zone)) is not None:
        lines.append(_line(banner, "bold red"))
    # Two lines, so that a narrow terminal shows what follows.
    lines += [
        _line(sentence, "bold red") for sentence in sentences(silence_of(snapshot), 1000 * now_s, zone) or ()
    ]
    watermark_s = snapshot.watermark_s
    fresh = Text.assemble(
        (words, style),
        " · " if words else "",
        "watermark ",
        "unknown" if watermark_s is None else f"{span(now_s - watermark_s)} behind",
        " · ",
        f"flushed {span(now_s - snapshot.flushed_s)} ago",
        " · final through ",
        _final_through(snapshot, now_s, zone),
        no_wrap=True,
        overflow="ellipsis",
    )
    return [*lines, fresh, *_sources(snapshot, now_s), *_ledger(snapshot.accounts.values())]


def _sources(snapshot: Snapshot, now_s: float) -> list[Text]:
    """A line of each process of a live source, first those that no longer report."""
    sources = []
    for row in snapshot.sources.values():
        ago_s = max(0.0, now_s - integer(row.get("updated_ms")) / 1000)
        away, waiting = 1000 * ago_s > STALE_MS, whole(number(row.get("waiting")))
        read, pixels, not_ours, rejected, behind = (
            whole(number(row.get(name))) for name in ("read", "pixels", "not_ours", "rejected", "behind")
        )
        words = f"source {shown(row.get('source', ''), LINE)}: "
        words += f"no report for {span(ago_s)} · " if away else ""
        words += f"{waiting} partitions wait for a schema · " if waiting != "0" else ""
        words += (
            f"{behind} behind · read {read} = pixels {pixels} + not ours {not_ours} + rejected {rejected}"
        )
        sources.append((not away, waiting == "0", words))
    sources.sort()
    rest = len(sources) - _MAX_SOURCE_LINES
    lines = [
        _line(words, "" if well and ready else "bold red")
        for well, ready, words in sources[:_MAX_SOURCE_LINES]
    ]
    return [*lines, *([_line(f"… and {rest:,} more processes of sources", "dim")] if rest > 0 else [])]


def _final_through(snapshot: Snapshot, now_s: float, zone: tzinfo | None) -> str:
    # The greatest of all rows: a quiet row still shows the final minute of its last change.
    rows = snapshot.rows.get("placement", {}).values()
    final = (number(row.get("final_through_ms")) for row in rows)
    return moment(max((ms for ms in final if math.isfinite(ms)), default=0.0), 1000 * now_s, zone)


def _ledger(accounts: Collection[Mapping[str, str]]) -> list[Text]:
    sums = Counter[str]()
    for account in accounts:
        sums.update({field: integer(text) for field, text in account.items() if field.startswith(_COUNTED)})
    received, accepted, repeated = (f"{sums.pop(field, 0):,}" for field in _BALANCE)
    listed = " · ".join(
        f"{field.removeprefix(_REJECTED)} {count:,}" for field, count in sums.most_common() if count
    )
    return [
        _line(f"received {received} = accepted {accepted} + repeated {repeated} + rejected {sums.total():,}"),
        _line(f"rejected: {listed or 'none'}"),
    ]


def sums(rows: Sequence[Row], desk: Desk) -> str:
    """Sums of rows: `40 placements · 1 under · short by 12,345 · GBP 61.20 at stake`."""
    counts = Counter(row.state for row in rows)
    parts = [
        f"{counts[name]:,} {words}"
        for name, words in (("under", "under"), ("at_risk", "at risk"), ("unjudged", "not judged"))
        if counts[name]
    ]
    hits = sum(1 for row in rows if row.blocked > 0)
    rows = [row for row in rows if row.state != "unjudged"]  # their shortfall allows no action
    short = math.fsum(row.short for row in rows if math.isfinite(row.short))
    stake = math.fsum(row.stake for row in rows if math.isfinite(row.stake))
    parts += [f"{hits:,} in blocked content"] if hits else []
    parts += [f"short by {whole(short)} impressions"] if short else []
    end = math.fsum(row.stake_end for row in rows if math.isfinite(row.stake_end))
    money = [f"{amount(value)} {when}" for value, when in ((stake, "at stake"), (end, "by the end")) if value]
    parts += [f"{desk.currency} {', '.join(money)}"] if money and desk.currency else []
    return " · ".join(parts) or NULL


def _line(text: str, style: str = "") -> Text:
    # Never wrapped: the lines above the table are counted.
    return Text(shown(text, LINE), style, no_wrap=True, overflow="ellipsis")
