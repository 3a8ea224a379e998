"""Texts from outside, shown in a terminal as plain letters, whatever they contain.

Other people choose the ids and labels of pixels, cells of plans, names of files and answers of servers. A
terminal executes control characters, and a bidirectional character reverses the text after it. Rich executes
markup (`[/b]` is an error, `[link=…]` a link) and emoji codes. Such a text therefore goes to a terminal only
through this module.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import TYPE_CHECKING, Final, TextIO

from rich.cells import cell_len, set_cell_size
from rich.text import Text

if TYPE_CHECKING:
    from rich.console import Group
    from rich.table import Table

MAX_CELLS: Final = 128
"""The greatest width of an id, in cells. An id is shown whole, unless its letters are wide."""
LINE: Final = 2_000
"""The greatest width of a line, in cells, such as an error with names in it."""
_WIDE: Final = 1000
"""The width of a table's lines, in cells, if standard output is no terminal."""
_UNSEEN: Final = frozenset(
    map(
        chr,
        (
            0x034F,  # grapheme joiner
            *(0x115F, 0x1160, 0x3164, 0xFFA0),  # Hangul fillers
            *(0x17B4, 0x17B5),  # Khmer inherent vowels
            *range(0x180B, 0x1810),  # Mongolian variations
            *(0x2800, 0x1D159),  # Braille without a dot, null notehead
            *range(0xFE00, 0xFE10),  # variations, also in a plane of their own
            *range(0xE0100, 0xE01F0),
            0x16FE4,  # Khitan filler
        ),
    )
)
"""Invisible characters that Unicode's categories class as letters, marks or symbols."""


def shown(text: str, most: int = MAX_CELLS) -> str:
    """`text` on one line of at most `most` cells; an invisible character, except a plain space, becomes
    U+FFFD.

    The result is for `print`, logs and `Text`. Rich reads a `str` as markup, so pass `cell` to it.
    """
    # Combining letters take no cell, so a bound on cells does not bound their number.
    line = _marked(text[: 2 * most])
    if len(text) <= 2 * most and cell_len(line) <= most:
        return line
    return f"{set_cell_size(line, most - 1).rstrip()}…"


def cut(text: str, most: int) -> str:
    """`text` on one line of at most `most` letters of any width, for systems that count letters. Invisible
    characters become U+FFFD, as in `shown`.
    """
    line = _marked(text[:most])
    return line if len(text) <= most else f"{line[: most - 1]}…"


def _marked(text: str) -> str:
    return "".join(letter if _visible(letter) else "\N{REPLACEMENT CHARACTER}" for letter in text)


def _visible(letter: str) -> bool:
    return letter.isprintable() and letter not in _UNSEEN


def cell(text: str, most: int = MAX_CELLS) -> Text:
    """`shown` for rich, as a cell of a table or a line, without markup and emoji codes."""
    return Text(shown(text, most))


def is_terminal(stream: TextIO | None) -> bool:
    """True if a stream is a terminal. The stream is None if the process was started without it."""
    return stream is not None and stream.isatty()


def table_of_faults(lines: Counter[tuple[str, str]], first: Mapping[tuple[str, str], str]) -> Table:
    """A table of faulty lines by reason and field, the most frequent first, with the first line's place."""
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    for head in ("reason", "field", "lines", "first at"):
        table.add_column(head, justify="right" if head == "lines" else "left", overflow="fold")
    for (reason, field), count in lines.most_common():
        table.add_row(cell(reason), cell(field or "–"), f"{count:,}", cell(first[reason, field], LINE))
    return table


def print_table(table: Table | Group) -> None:
    """Print a table, or lines with one, on standard output. Each row is one line if that is no terminal."""
    from rich.console import Console

    console = Console()
    if console.is_terminal:
        console.print(table)
        return
    wide = Console(width=_WIDE)
    with wide.capture() as captured:
        wide.print(table)
    console.file.write("".join(f"{line.rstrip()}\n" for line in captured.get().splitlines()))
