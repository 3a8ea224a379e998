"""Files that are generated from the catalogue and from other definitions: tables of documents, the JSON
schema, and the columns and words of the live page.

`python -m flows.generated` writes them; a test checks that they are current.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

from flows.collector.tables import TABLES as OF_COLLECTOR
from flows.collector.tables import table
from flows.model.catalogue import states
from flows.model.catalogue.columns import COLUMNS, GROUPS, ORDERS, WORDS, Column
from flows.model.catalogue.events import EVENTS, NAMES
from flows.model.catalogue.exports import EXPORTS
from flows.model.catalogue.fields import CALLER_FIELDS, FIELDS, SCOPE_FIELDS, SCOPE_NAMES, Kind
from flows.model.catalogue.metrics import BY_FIELD
from flows.model.fields import COUNTS

ROOT: Final = Path(__file__).parents[1]
SCHEMA: Final = "docs/pixels.schema.json"
DECLARED: Final = "flows/viewers/static/declared.js"
DOCUMENTS: Final = (
    "docs/collector.md",
    "docs/contracts.md",
    "docs/exports.md",
    "docs/pixels.md",
    "docs/privacy.md",
    "docs/sources.md",
    "clients/node/rows.js",
    "clients/python/audiopixel_client/rows.py",
)


def events() -> str:
    """The table of events."""
    return table(["event", "counts as"], [[f"`{event.name}`", event.means] for event in EVENTS])


def event_names() -> str:
    """The events that a call may name, and other names for them."""
    aliases = (alias for event in EVENTS for alias in event.aliases)
    return f"Events: `{' '.join(NAMES)}`, and the usual aliases (`{' '.join(aliases)}`)."


def counts() -> str:
    """The line of the counts of every window. Counts of pixels without a play follow the others."""
    apart = [name for name in COUNTS if name.startswith("unlinked_")]
    of_plays = " ".join(name for name in COUNTS if name not in apart)
    return f"| … counts | `{of_plays}`, and of pixels without a play `{' '.join(apart)}` |"


def exports() -> str:
    """The commands of the exports."""
    calls = [
        (f"audiopixel export {export.name} {arguments}".rstrip(), does)
        for export in EXPORTS
        for arguments, does in export.examples
    ]
    width = max(len(call) for call, _ in calls)
    return "\n".join(("```sh", *(f"{call:{width}}   # {does}" for call, does in calls), "```"))


TABLES: Final[Mapping[str, Callable[[], str]]] = {
    **OF_COLLECTOR,
    "events": events,
    "event names": event_names,
    "exports": exports,
}
_FIRST, *_REST = SCOPE_FIELDS[1:]
_QUOTED: Final = ", ".join(f'"{name}"' for name in _REST)
_CALLERS: Final = " ".join(CALLER_FIELDS)
_OF_SCOPES: Final = {
    "`audiopixel:v1:<scope>:": f"{{<id>}}`, `<scope>` one of `{' '.join(SCOPE_NAMES[:-1])}`, and with",
    f"| `{_FIRST} ": f"{' '.join(_REST[:-1])}`, with `AUDIOPIXEL_APP_ROWS` `{_REST[-1]}` "
    "| of a placement: the value with the latest event time |",
    "**The fields of a mapping** are those of [pixels](pixels.md): ": (
        f"`event event_id play_id ts {_CALLERS}`,"
    ),
    f'  "{_FIRST}", ': f"{_QUOTED},",
    f'        *("{_FIRST}", ': f"{_QUOTED}),",
}
"""Lines with the names of scopes: the beginning of each line, and the text after it."""
LINES: Final[Mapping[str, str]] = {"| … counts |": counts()} | {
    begin: f"{begin}{rest}" for begin, rest in _OF_SCOPES.items()
}
"""Generated lines within hand-written text, by their beginnings."""


def current(text: str) -> str:
    """A document with its tables and lines replaced by current ones."""
    for name, table_of in TABLES.items():
        begin, end = f"<!-- {name} -->\n", f"<!-- /{name} -->"
        if begin in text:
            before, _, after = text.partition(begin)
            text = f"{before}{begin}{table_of()}\n{end}{after.partition(end)[2]}"
    for begin, line in LINES.items():
        text = re.sub(f"^{re.escape(begin)}.*$", lambda _: line, text, flags=re.M)  # noqa: B023
    return text


_FORMS: Final = {
    kind: {"$ref": f"#/$defs/{name}"}
    for kind, name in ((Kind.ID, "label"), (Kind.TEXT, "text"), (Kind.WHOLE, "whole"))
}


def schema(text: str) -> str:
    """The JSON schema of a message, with its events and fields replaced by current ones. A new field gets the
    form of its kind.
    """
    document = json.loads(text)
    pixel = document["$defs"]["pixel"]
    forms = {field.name: pixel["properties"].get(field.name) or _FORMS[field.kind] for field in FIELDS}
    pixel["properties"] = {field.name: {"description": field.means} | forms[field.name] for field in FIELDS}
    pixel["properties"]["event"]["enum"] = NAMES
    return json.dumps(document, indent=2, ensure_ascii=False) + "\n"


def column(column: Column) -> Mapping[str, object]:
    """A column in the form that the page reads. Empty attributes are absent; `metric` is the name of a
    number's metric.
    """
    field = column.fields[0] if column.fields else ""
    metric = BY_FIELD[field].name if field in BY_FIELD and column.form not in WORDS else ""
    left_out = ("fields", "counted", "least_first", "csv_title", "plain")
    values = {name: value for name, value in column._asdict().items() if name not in left_out}
    values |= {
        "field": field,
        "unit": column.unit,
        "down": column.down,
        "csvTitle": column.csv_title,
        "metric": metric,
    }
    return {name: value for name, value in values.items() if value or name == "rank"}


def declared(_: str) -> str:
    """The page's module of columns, groups, orders and states, whatever its present text."""

    def text(value: object) -> str:
        return json.dumps(value, ensure_ascii=False, separators=(",", ":"))

    words = {
        "GROUPS": GROUPS,
        "ORDERS": ORDERS,
        "STATES": states.STATES,
        "ROW_REASONS": states.ROW_REASONS,
        "UNKNOWN_BEFORE": states.UNKNOWN_BEFORE,
        "UNJUDGED": states.UNJUDGED,
    }
    columns = ",\n".join(text(column(entry)) for entry in COLUMNS)
    return "\n".join(
        (
            "// Columns and words of flows/model/catalogue; `python -m flows.generated` writes this file.",
            f"export const DECLARED = [\n{columns},\n];",
            *(f"export const {name} = {text(value)};" for name, value in words.items()),
            "",
        )
    )


FILES: Final[Mapping[str, Callable[[str], str]]] = {
    **dict.fromkeys(DOCUMENTS, current),
    SCHEMA: schema,
    DECLARED: declared,
}
"""Each file, and the function that makes it from its present text."""


def write(root: Path) -> None:
    """Write the generated files of a source tree."""
    for name, content_of in FILES.items():
        path = root / name
        path.write_text(content_of(path.read_text()))


if __name__ == "__main__":
    write(ROOT)
