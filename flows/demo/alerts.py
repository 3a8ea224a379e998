"""Shows the alerts that fire while the demo runs.

If Prometheus and Alertmanager are installed, both run on loopback with the project's own rules, and
Alertmanager reports the firing alerts. Otherwise the flow's own alerts in Redis are shown, which are changes
of delivery states and of feeds.
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Final, NamedTuple, Protocol

from rich import box
from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from connectors.alerting import Alertmanager, Prometheus, program
from connectors.ports import free_ports
from connectors.redis import Client, entries_after
from connectors.stream import ConnectError
from flows.settings import Settings
from flows.shown import LINE, cell, shown
from flows.viewers.silence import FEED, unit_words

SUSTAINED_S: Final = 2
"""The time, in s, for which a state must hold to fire, instead of the ten minutes of a trader's alert."""

STATE_CHANGE: Final = "state change"
FEED_SILENT: Final = "feed silent"
UNDER: Final = "under"
_SHOWN: Final = 5
_PREFIX: Final = "Audiopixel"
"""The prefix of every alert's name. It is cut off, so that a line has room for the alert's text."""
WAIT_S: Final = 20.0
"""The longest time, in s, for which the summary waits for a due alert: two scrapes, the rule's `for:`, and a
margin for a busy machine.
"""


class Firing(NamedTuple):
    """A firing alert; texts are empty if unknown."""

    name: str
    placement: str
    campaign: str
    summary: str
    unit: str = ""


class Watch(Protocol):
    """A source of firing alerts.

    Attributes:
        where: the places to see the alerts, as one line for people.
    """

    where: str

    def firing(self) -> list[Firing]:
        """The firing alerts, by placement; the last known ones if the source cannot be read."""


class Rules:
    """Alerts of a Prometheus that evaluates the rules, and of its Alertmanager."""

    def __init__(self, prometheus: Prometheus, alertmanager: Alertmanager) -> None:
        self.where = f"Alertmanager {alertmanager.url}/#/alerts, Prometheus {prometheus.url}/alerts"
        self._alertmanager = alertmanager
        self._last: list[Firing] = []

    def firing(self) -> list[Firing]:
        """The alerts that fire in Alertmanager."""
        with suppress(ConnectError):
            self._last = sorted(
                Firing(
                    alert["labels"]["alertname"],
                    alert["labels"].get("placement", ""),
                    alert["labels"].get("campaign", ""),
                    alert["annotations"].get("summary", ""),
                    alert["labels"].get("unit", ""),
                )
                for alert in self._alertmanager.firing()
            )
        return self._last


class Changes:
    """Alerts of the flow's stream of changed states. A placement fires if its last change was to `under`, and
    a feed if its last change was to `silent`.
    """

    def __init__(self, client: Client, namespace: str, why: str) -> None:
        self._client, self._key = client, f"{namespace}:alerts"
        self.where = (
            f"{why}: alert rules are not evaluated; the alerts shown are those that the flow writes to the "
            f"Redis stream {self._key}"
        )
        self._last = ""
        self._under: dict[str, Firing] = {}
        self._silent: dict[str, Firing] = {}

    def firing(self) -> list[Firing]:
        """Placements that under-deliver and silent feeds, by the flow's latest record of each."""
        with suppress(ConnectError):
            for entry, change in entries_after(self._client, self._key, self._last):
                self._last = entry
                if change.get("kind") == FEED:
                    self._take_feed(change["unit"], change["to"])
                    continue
                self._under.pop(change["placement"], None)
                if change["to"] == UNDER:
                    self._under[change["placement"]] = _state_change(change)
        return sorted([*self._under.values(), *self._silent.values()])

    def _take_feed(self, unit: str, state: str) -> None:
        self._silent.pop(unit, None)
        if state == "silent":
            self._silent[unit] = Firing(FEED_SILENT, "", "", f"{unit_words(unit)} is silent", unit)


def _state_change(change: dict[str, str]) -> Firing:
    placement, campaign = change["placement"], change.get("campaign", "")
    return Firing(
        STATE_CHANGE,
        placement,
        campaign,
        f"{placement} of campaign {campaign} is {change['to']}: {int(change['delivered']):,} delivered of "
        f"{float(change['expected']):,.0f} due by now",
    )


def start(
    stack: ExitStack, directory: Path, client: Client, settings: Settings, exporter: int, token: str
) -> Watch:
    """Start the installed source of alerts, which runs until `stack` is closed.

    Args:
        directory: the directory for its configuration.
        settings: the settings of the flow and the collector, whose metrics are read.
        exporter: the port of the exporter. Alerts link to the documents that it serves.
        token: the token that may scrape the exporter.
    """
    namespace = settings.namespace
    missing = [name.capitalize() for name in ("prometheus", "alertmanager") if program(name) is None]
    if missing:
        return Changes(client, namespace, f"{' and '.join(missing)} not found on the PATH")
    with ExitStack() as started:
        try:
            (port,) = free_ports(1)
            token_file = directory / "exporter-token"
            token_file.write_text(token)
            # Run as a program: the dashboards import the flow's metrics, never the reverse.
            subprocess.run(
                [
                    *(sys.executable, "-m", "dashboards", "local", str(directory)),
                    *("--flow", str(settings.metrics_port), "--exporter", str(exporter)),
                    *("--collector", str(settings.collect_health_port), "--alertmanager", str(port)),
                    *("--sustained", str(SUSTAINED_S), "--token-file", str(token_file)),
                    *("--docs-url", f"http://127.0.0.1:{exporter}/docs"),
                ],
                check=True,
                capture_output=True,
                text=True,
                start_new_session=True,
            )
            alertmanager = started.enter_context(Alertmanager(directory / "alertmanager.yml", port))
            prometheus = started.enter_context(Prometheus(directory / "prometheus.yml"))
        except subprocess.CalledProcessError as error:
            error_lines = error.stderr.strip().splitlines() or ["no rules"]
            return Changes(client, namespace, f"Prometheus and Alertmanager got no rules ({error_lines[-1]})")
        except ConnectError as error:
            return Changes(client, namespace, f"Prometheus and Alertmanager did not start ({error})")
        stack.enter_context(started.pop_all())
    return Rules(prometheus, alertmanager)


def lines(firing: Sequence[Firing]) -> list[Text]:
    """A line for each firing alert, to stand below the live table."""
    alert_lines = [
        Text.assemble(
            (alert.name.removeprefix(_PREFIX), "bold red"),
            f" {shown(alert.summary, LINE)}",
            no_wrap=True,
            overflow="ellipsis",
        )
        for alert in firing[:_SHOWN]
    ]
    unshown = len(firing) - len(alert_lines)
    return [*alert_lines, *([Text(f"… and {unshown:,} more alerts", "dim")] if unshown else [])]


class News:
    """Finds the alerts that were not reported yet."""

    def __init__(self) -> None:
        self._reported: set[tuple[str, str, str]] = set()

    def unreported(self, firing: Sequence[Firing]) -> list[Firing]:
        """The alerts that were not reported yet, which count as reported from now on."""
        new = [one for one in firing if _identity(one) not in self._reported]
        self._reported.update(map(_identity, new))
        return new


def _identity(alert: Firing) -> tuple[str, str, str]:
    return alert.name, alert.placement, alert.unit


def report(watch: Watch, starved: str | None) -> Sequence[RenderableType]:
    """The firing alerts for the summary, and the alert that concerns the starved placement.

    Args:
        starved: the placement whose alert is awaited for up to `WAIT_S`; None to wait for no alert.
    """
    deadline_s = time.monotonic() + WAIT_S
    while True:
        firing = watch.firing()
        awaited = [one for one in firing if one.placement == starved]
        if awaited or starved is None or time.monotonic() > deadline_s:
            break
        time.sleep(0.2)
    verdicts = [
        Text(f"{alert.name} fires for {starved}, which the simulator starves", "green") for alert in awaited
    ]
    if starved is not None and not awaited:
        verdicts = [Text(f"no alert fires for {starved}, which the simulator starves", "bold red")]
    if not firing:
        return verdicts or [Text("no alert fires")]
    table = Table(title="the alerts that fire", title_justify="left", box=box.SIMPLE_HEAD)
    table.add_column("alert", no_wrap=True)
    table.add_column("summary")
    for alert in firing:
        table.add_row(alert.name, cell(alert.summary, LINE))
    return [table, *verdicts]
