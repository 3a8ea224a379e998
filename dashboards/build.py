"""The files in dashboards/generated, each made from its Python."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from dashboards import delivery_rules, pipeline_rules
from dashboards.layout import to_json
from dashboards.pipeline import pipeline
from dashboards.placement import placement
from dashboards.routing import alertmanager
from dashboards.rules import rule_file
from dashboards.trading_desk import trading_desk

GENERATED: Final = Path(__file__).parent / "generated"


def generated() -> dict[str, str]:
    """Content by file name."""
    boards = {"trading-desk": trading_desk(), "placement": placement(), "pipeline": pipeline()}
    return {
        "rules.yml": rule_file((pipeline_rules.PIPELINE, *delivery_rules.groups())),
        "alertmanager.yml": alertmanager(),
        **{f"{name}.json": to_json(board) for name, board in boards.items()},
    }


def write(directory: Path = GENERATED) -> list[str]:
    """Write what differs; the names of the files written."""
    directory.mkdir(exist_ok=True)
    names = stale(directory)
    contents = generated()
    for name in names:
        (directory / name).write_text(contents[name])
    return names


def stale(directory: Path = GENERATED) -> list[str]:
    """Names of the files that differ from what their Python makes, or are missing."""
    made = generated().items()
    return [
        name
        for name, text in made
        if not (directory / name).exists() or (directory / name).read_text() != text
    ]
