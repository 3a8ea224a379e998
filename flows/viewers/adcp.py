"""The tasks of AdCP (adcontextprotocol.org, 3.2) that a measurement agent and reporting source answers, from
the rows: capabilities, delivery and reporting status.

A campaign with a plan is a media buy, its placements are its packages. Rows that a reader may not see are
answered as missing. `flows.viewers.adcp_doors` serves the tasks over HTTP and as MCP tools.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, Final

from connectors.stream import ConnectError
from flows import metrics
from flows.model.ticks import MINUTE_MS, open_from
from flows.settings import Settings, ms
from flows.viewers.access import NOBODY, Owners, Sight
from flows.viewers.adcp_delivery import Buy, coverage_of, moment, whole_of
from flows.viewers.reader import RowsReader, Snapshot, Unjudged

VERSION: Final = "3.2"
MAJOR: Final = 3
MAX_BUYS: Final = 100
"""The most media buys of an answer."""
CAPABILITIES: Final = "get_adcp_capabilities"
"""The one task that needs no token."""
STATUS: Final = "get_reporting_status"
VIEWS: Final = ("summary", "periods", "revision")
CONFIGURATION: Final = {"delivery_config_id": "live", "delivery_config_version": 1, "feed_purpose": "pacing"}
"""The only reporting feed: the answer of `get_media_buy_delivery`, always of the present."""
ACCOUNT_OF_ALL: Final = "all"
NO_CURRENCY: Final = "XXX"
"""ISO 4217's code for no currency, for an answer without any price."""

Body = dict[str, Any]

_RECOVERY: Final = {
    "SERVICE_UNAVAILABLE": "transient",
    "ACCOUNT_NOT_FOUND": "terminal",
    "AUTH_INVALID": "terminal",
    "PERMISSION_DENIED": "terminal",
}
"""The recovery from an error, by its code; for other codes the caller must correct the request."""


def problem(code: str, message: str) -> Body:
    """An error object of AdCP."""
    return {"code": code, "message": message, "recovery": _RECOVERY.get(code, "correctable")}


class Refused(Exception):
    """A task that cannot be done: AdCP's error code, a message, and the HTTP status."""

    def __init__(self, code: str, message: str, status: int = 400) -> None:
        super().__init__(message)
        self.code, self.status = code, status

    def body(self, task: str = "", request_body: Body | None = None) -> Body:
        """The answer of the task.

        Args:
            request_body: the task's request; None if it could not be read.
        """
        error = problem(self.code, str(self))
        body = {"status": "failed", "adcp_version": VERSION, "adcp_error": error, "errors": [error]}
        return body | self._of_status(task, request_body or {}, "operational")

    @staticmethod
    def _of_status(task: str, request_body: Body, kind: str) -> Body:
        """The fields that only a failed `get_reporting_status` has."""
        view = request_body.get("view")
        return {"view": view if view in VIEWS else VIEWS[0], "failure_kind": kind} if task == STATUS else {}


class Unavailable(Refused):
    """The reporting status of a missing or hidden media buy: AdCP has one answer for both."""

    def __init__(self) -> None:
        super().__init__("NOT_FOUND", "Reporting status resource is unavailable.", 404)

    def body(self, task: str = "", request_body: Body | None = None) -> Body:
        """The answer of the task."""
        error = {"code": self.code, "message": str(self)}
        body = {"status": "failed", "adcp_version": VERSION, "adcp_error": error, "errors": [error]}
        return body | self._of_status(STATUS, request_body or {}, "lookup_unavailable")


@dataclass
class Agent:
    """Answers tasks by the rows in Redis.

    Args:
        owners: the owners of the planned placements; an unplanned placement belongs to its label's campaign.
        clock_s: wall clock, epoch s.
    """

    reader: RowsReader
    settings: Settings
    owners: Owners
    clock_s: Callable[[], float] = field(default=time.time)

    def call(self, task: str, request_body: Body, sight: Sight) -> Body:
        """The answer to a task.

        Raises:
            Refused: the task cannot be done.
            ConnectError: Redis cannot be read.
        """
        answers = {
            CAPABILITIES: self._capabilities,
            "get_media_buy_delivery": self._delivery,
            STATUS: self._status,
        }
        if task != CAPABILITIES and sight == NOBODY:
            raise Refused("AUTH_MISSING", "Show a read token: Authorization: Bearer NAME.SECRET.", 401)
        if task not in answers:
            raise Refused("NOT_FOUND", "There is no such task.", 404)
        _check_version(request_body)
        body = {"status": "completed", "adcp_version": VERSION, **answers[task](request_body, sight)}
        return (
            body | {"context": request_body["context"]}
            if isinstance(request_body.get("context"), dict)
            else body
        )

    def _capabilities(self, request_body: Body, sight: Sight) -> Body:
        # While Redis is away, too: the capabilities do not depend on it.
        methodology = self.reader.refresh().meta.get("methodology")
        shown = [metric for metric in metrics.PLACEMENT if metric.field]
        return {
            "adcp": {
                "major_versions": [MAJOR],
                "supported_versions": [VERSION],
                "idempotency": {"supported": False},
            },
            "supported_protocols": ["media_buy", "measurement"],
            "experimental_features": ["measurement.core", "media_buy.reporting_delivery"],
            "measurement": {
                "metrics": [
                    {
                        "metric_id": metric_id(metric.field),
                        "description": metric.help,
                        **({"methodology_version": methodology} if methodology else {}),
                    }
                    for metric in {metric.field: metric for metric in shown}.values()
                ]
            },
        }

    def _snapshot(self) -> Snapshot:
        snapshot = self.reader.refresh()
        if not snapshot.up:
            raise ConnectError(snapshot.error)
        return snapshot

    def _buys(self, request_body: Body, sight: Sight, snapshot: Snapshot) -> tuple[list[Buy], list[Body]]:
        """The requested media buys, by id, and an error for each missing one."""
        _check_account(request_body, sight)
        campaign_rows = sight.rows("campaign", snapshot.rows.get("campaign", {}))
        planned = {name for name, row in campaign_rows.items() if "delivery.state" in row}
        wanted = _names(request_body)
        names = sorted(planned if wanted is None else planned & set(wanted))
        errors = [
            problem("MEDIA_BUY_NOT_FOUND", f"There is no media buy {name!r}.")
            for name in wanted or ()
            if name not in planned
        ]
        if len(names) > MAX_BUYS:
            words = (
                f"{len(names)} media buys are in sight, and the answer has {MAX_BUYS}: ask by media_buy_ids."
            )
            errors.append(problem("RESULT_TRUNCATED", words))
        rows = self.reader.rows("campaign", names[:MAX_BUYS])
        lateness_text = snapshot.meta.get("allowed_lateness_ms")
        lateness_ms = ms(self.settings.allowed_lateness) if lateness_text is None else int(lateness_text)
        final_ms = open_from(whole_of(snapshot.meta, "watermark_ms"), lateness_ms) * MINUTE_MS
        return [Buy(name, row, final_ms, lateness_ms) for name, row in rows.items()], errors

    def _delivery(self, request_body: Body, sight: Sight) -> Body:
        if request_body.get("start_date") or request_body.get("end_date"):
            raise Refused(
                "UNSUPPORTED_FEATURE", "Delivery is reported for the whole flight: leave the dates out."
            )
        snapshot = self._snapshot()
        buys, errors = self._buys(request_body, sight, snapshot)
        if (statuses := _statuses(request_body)) is not None:
            buys = [buy for buy in buys if buy.status in statuses]
        packages = self._packages([buy.name for buy in buys], sight, snapshot)
        currency = next((buy.currency for buy in buys if buy.priced), NO_CURRENCY)
        shown_buys = []
        for buy in buys:
            if not buy.priced:
                words = f"No price of media buy {buy.name!r} is known, or its plans have several currencies."
                errors.append(problem("SPEND_UNKNOWN", words))
            elif buy.currency != currency:
                words = f"Media buy {buy.name!r} is in {buy.currency}: ask for it alone."
                errors.append(problem("CURRENCY_MISMATCH", words))
            else:
                shown_buys.append(buy)
        until_ms = whole_of(snapshot.meta, "watermark_ms") or whole_of(snapshot.meta, "flushed_ms")
        body: Body = {
            "reporting_period": {
                "start": moment(min([until_ms, *(buy.start_ms for buy in shown_buys)])),
                "end": moment(until_ms),
            },
            "currency": currency,
            "aggregated_totals": _totals(shown_buys),
            "media_buy_deliveries": [buy.delivery(packages.get(buy.name, {})) for buy in shown_buys],
        }
        if (window := attribution_window(self.settings)) is not None:
            body["attribution_window"] = window
        if (methodology := snapshot.meta.get("methodology")) is not None:
            body["ext"] = {"audiopixel": {"methodology": methodology}}
        return body | {"errors": errors} if errors else body

    def _packages(
        self, buys: Sequence[str], sight: Sight, snapshot: Snapshot
    ) -> dict[str, dict[str, Mapping[str, str]]]:
        """The whole rows of the placements of media buys, by media buy and placement."""
        placement_rows = sight.rows("placement", snapshot.rows.get("placement", {}))
        buy_of = {name: self.owners.campaign_of(name, row) for name, row in placement_rows.items()}
        rows = self.reader.rows("placement", sorted(name for name, buy in buy_of.items() if buy in set(buys)))
        rows_by_buy: dict[str, dict[str, Mapping[str, str]]] = {}
        for name, row in rows.items():
            rows_by_buy.setdefault(buy_of[name] or "", {})[name] = row
        return rows_by_buy

    def _status(self, request_body: Body, sight: Sight) -> Body:
        if request_body.get("view", "summary") != "summary":
            words = "This agent answers view=summary; versions of rows are in ext.audiopixel.revisions."
            raise Refused("UNSUPPORTED_FEATURE", words)
        snapshot = self._snapshot()
        flushed_ms = whole_of(snapshot.meta, "flushed_ms")
        if not flushed_ms:
            raise Refused("SERVICE_UNAVAILABLE", "No flow has written yet.", 503)
        try:
            buys, errors = self._buys(request_body, sight, snapshot)
        except Refused as refused:
            raise (Unavailable() if refused.code == "ACCOUNT_NOT_FOUND" else refused) from None
        if any(error["code"] == "MEDIA_BUY_NOT_FOUND" for error in errors):
            raise Unavailable
        packages = self._packages([buy.name for buy in buys], sight, snapshot)
        unjudged = snapshot.unjudged_at(self.clock_s())
        states = [buy.health(unjudged is not None) for buy in buys]
        counts = {
            name: states.count(name)
            for name in ("waiting", "healthy", "delayed", "action_required", "complete")
        }
        closed = bool(states) and set(states) == {"complete"}
        health = (
            "delayed" if counts["delayed"]
            else "complete" if closed
            else "healthy" if counts["healthy"] or counts["complete"]
            else "waiting"
        )  # fmt: skip
        through_ms = whole_of(snapshot.meta, "watermark_ms")
        starts = moment(min((buy.start_ms for buy in buys), default=flushed_ms))
        body: Body = {
            "view": "summary",
            "ledger_snapshot_id": ".".join(
                snapshot.meta.get(part, "0") for part in ("generation", "fence", "rev")
            ),
            "ledger_as_of": moment(flushed_ms),
            "account_id": account_of(sight),
            "scope": {
                "period_start": starts,
                "period_end": moment(max((buy.end_ms for buy in buys), default=flushed_ms)),
                "scope_closed": closed,
                "all_accessible_media_buys": _names(request_body) is None,
                "media_buy_ids": [buy.name for buy in buys],
                "delivery_config_generations": [CONFIGURATION] if buys else [],
                "feed_purposes": [CONFIGURATION["feed_purpose"]] if buys else [],
                "finality": ["snapshot"] if buys else [],
                "ledger_retained_from": starts,
                "coverage_complete": True,
            },
            "coverage": coverage_of(buys, packages, moment(flushed_ms)),
            "health": health,
            "data_through": moment(through_ms) if through_ms else None,
            "obligation_counts": {"total": len(buys), **counts},
            "issues": [],
            "ext": {"audiopixel": {"revisions": {buy.name: buy.revision() for buy in buys}}},
        }
        if health == "delayed":
            body["issues"] = [_issue(unjudged or min(filter(None, (buy.unjudged for buy in buys))))]
        return body | {"errors": errors} if errors else body


def _issue(unjudged: Unjudged) -> Body:
    since_ms, reason = int(unjudged.since_s * 1000), unjudged.reason
    return {
        "issue_id": f"{reason}:{since_ms}",
        "code": "REPORT_OVERDUE",
        "severity": "delayed",
        "opened_at": moment(since_ms),
        "responsible_party": "seller",
        "recommended_action": "wait_for_retry",
        "message": f"Delivery is not judged ({reason}).",
    }


def _check_version(request_body: Body) -> None:
    """Refuse a request of another major version; our newest release answers any other."""
    version = request_body.get("adcp_version")
    major = (
        version.partition(".")[0]
        if isinstance(version, str)
        else request_body.get("adcp_major_version", MAJOR)
    )
    if str(major) != str(MAJOR):
        raise Refused("VERSION_UNSUPPORTED", f"This agent speaks AdCP {VERSION}.")


def metric_id(field: str) -> str:
    """The name of a row's field in AdCP, where no name begins with a digit."""
    window, _, metric = field.partition(".")
    return f"{metric}_{window}" if window[0].isdigit() else f"{window}_{metric}".rstrip("_")


def account_of(sight: Sight) -> str:
    """The account of a reader: its token's name, or the common one of readers who see everything."""
    return ACCOUNT_OF_ALL if sight.everything else sight.name


def _check_account(request_body: Body, sight: Sight) -> None:
    account = request_body.get("account")
    name = account.get("account_id") if isinstance(account, dict) else None
    if name is not None and name != account_of(sight):
        raise Refused("ACCOUNT_NOT_FOUND", "There is no such account.", 404)


def _names(request_body: Body) -> list[str] | None:
    """The requested media buys, each once; None for all."""
    names = request_body.get("media_buy_ids")
    if names is None:
        return None
    if (
        not isinstance(names, list)
        or len(names) > MAX_BUYS
        or not all(isinstance(name, str) for name in names)
    ):
        raise Refused("INVALID_REQUEST", f"media_buy_ids takes a list of at most {MAX_BUYS} ids.")
    return list(dict.fromkeys(names))


def _statuses(request_body: Body) -> list[Any] | None:
    wanted = request_body.get("status_filter")
    return wanted if wanted is None or isinstance(wanted, list) else [wanted]


def _totals(buys: Sequence[Buy]) -> Body:
    sums: Body = {"media_buy_count": len(buys)}
    for name in ("impressions", "spend", "clicks", "views", "completed_views", "conversions"):
        sums[name] = round(sum(buy.metrics().get(name, 0) for buy in buys), 6)
    return sums


def _duration(length: timedelta) -> Body:
    """A time in the largest of AdCP's units of which it is a whole number; fractions of a second are cut."""
    seconds = length // timedelta(seconds=1)
    units = (("days", 86_400), ("hours", 3_600), ("minutes", 60), ("seconds", 1))
    unit, size = next((name, size) for name, size in units if seconds % size == 0)
    return {"interval": seconds // size, "unit": unit}


def attribution_window(settings: Settings) -> Body | None:
    """The windows and the model of credit for conversions; None if touches give none."""
    if settings.attribution == "off":
        return None
    return {
        "post_click": _duration(settings.click_window),
        "post_view": _duration(settings.listen_window),
        "model": settings.attribution,
    }
