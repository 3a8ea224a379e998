"""The files in dashboards/generated, each made from its Python, with the extra `dashboards`."""

from __future__ import annotations

from pathlib import Path

from dashboards.collector import collector
from dashboards.layout import to_json
from dashboards.pipeline import pipeline
from dashboards.placement import placement
from dashboards.routing import alertmanager
from dashboards.site import GENERATED, USUAL_SITE, Site
from dashboards.trading_desk import trading_desk


def generated(site: Site = USUAL_SITE) -> dict[str, str]:
    """Content by file name."""
    boards = {
        "trading-desk": trading_desk(site.limits),
        "placement": placement(site.limits),
        "pipeline": pipeline(),
        "collector": collector(),
    }
    return {
        "rules.yml": site.rules,
        "prometheus-rule.yml": site.prometheus_rule,
        "alertmanager.yml": alertmanager(),
        **{f"{name}.json": to_json(board, site.docs) for name, board in boards.items()},
    }


def write(directory: Path = GENERATED, site: Site = USUAL_SITE) -> list[str]:
    """Write the files that differ, and return their names."""
    directory.mkdir(parents=True, exist_ok=True)
    names = stale(directory, site)
    contents = generated(site)
    for name in names:
        (directory / name).write_text(contents[name])
    return names


def stale(directory: Path = GENERATED, site: Site = USUAL_SITE) -> list[str]:
    """Names of the files that differ from what their Python makes, or are missing."""
    texts = generated(site).items()
    return [
        name
        for name, text in texts
        if not (directory / name).exists() or (directory / name).read_text() != text
    ]
