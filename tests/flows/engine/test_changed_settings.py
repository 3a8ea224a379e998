"""Settings that change at random from one start to the next: each start goes on with right numbers, or is
refused with what to do.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as profile
from hypothesis import strategies as st

from connectors.redis.client import Client
from flows.engine import StopSignal, fresh
from flows.errors import AudiopixelError, SettingsError, StateError
from flows.replay import replay
from flows.settings.archive import ArchiveSettings
from flows.settings.collect import CollectSettings
from flows.settings.exports import ExportSettings
from flows.settings.fields import Settings
from flows.settings.read import ReadSettings

KEYS = (b"the first secret of a flow", b"another secret by mistake")
BEGAN_MS = 1_764_000_000_000
PIXELS, BOUGHT = 180, 9


def durations(*values: int, **unit: int) -> st.SearchStrategy[timedelta]:
    (name,) = unit
    return st.sampled_from([timedelta(**{name: value}) for value in values])


VALUES: dict[str, st.SearchStrategy[Any]] = {
    "listener_key": st.sampled_from(KEYS),
    "shards": st.sampled_from([4, 8]),
    "timezone": st.sampled_from(["UTC", "Asia/Tokyo"]),
    "app_rows": st.booleans(),
    "conversion_horizon": durations(20, 40, 60, days=1),
    "click_window": durations(1, 7, 30, days=1),
    "listen_window": durations(1, 7, 14, days=1),
    "conversions_from": st.sampled_from(["browser", "server"]),
    "attribution": st.sampled_from(["last_touch", "first_touch", "linear", "time_decay", "off"]),
    "allowed_lateness": durations(0, 30, 600, seconds=1),
    "horizon": durations(1, 60, 1440, minutes=1),
    "out_of_orderness": durations(0, 10, 60, seconds=1),
    "quiet": durations(1, 60, seconds=1),
    "flush_interval": durations(5, 50, 200, milliseconds=1),
    "save_interval": durations(5, 200, milliseconds=1),
    "mature_after": durations(0, 10, minutes=1),
    "minutes_interval": durations(0, 10, seconds=1),
    "row_ttl": durations(2, 2880, minutes=1),
    "half_life": durations(1, 72, hours=1),
    "row_memory": durations(40, 62, 400, days=1),
    "row_cap": st.sampled_from([100, 1_000_000]),
    "unplanned_rows": st.sampled_from([50, 1_000_000]),
    "unplanned_bytes": st.sampled_from([1 << 20, 1 << 30]),
    "decisions_ttl": durations(1, 7, days=1),
    "touch_listens": st.sampled_from([1, 100]),
    "touch_clicks": st.sampled_from([1, 100]),
    "touch_listens_in_all": st.sampled_from([1, 1000]),
    "touch_clicks_in_all": st.sampled_from([1, 1000]),
    "household_listeners": st.sampled_from([1, 250]),
    "utm_placements": st.sampled_from([{}, {"banner": "p"}]),
    "platform_basis": st.sampled_from([{}, {"a platform": "audible_2s"}]),
    "invalid_agents": st.sampled_from([{}, {"spam": "spamware"}, {"fraud": "f", "spam": "s"}]),
    "max_hold": durations(1, 1440, minutes=1),
    "max_state": st.sampled_from([1, 50_000_000]),
    "under": st.sampled_from([0.5, 0.9]),
    "over": st.sampled_from([1.1, 9.0]),
    "delivery_grace": durations(0, 60, minutes=1),
    "delivery_gap": durations(0, 60, minutes=1),
    "state_hold": durations(0, 60, minutes=1),
    "silent_after": durations(1, 10, minutes=1),
    "silent_history": durations(1, 7, days=1),
    "linger": durations(0, 20, milliseconds=1),
    "reject_share": st.sampled_from([0.01, 1.0]),
    "reject_least": st.sampled_from([1, 10_000]),
    "consent": st.sampled_from(["required", "assumed"]),
    "batch_messages": st.sampled_from([7, 1000]),
    "labels": st.sampled_from(["any", "planned"]),
}
CHANGES = st.lists(st.sampled_from(sorted(VALUES)), max_size=5, unique=True).flatmap(
    lambda names: st.fixed_dictionaries({name: VALUES[name] for name in names})
)
"""A few at once: of many, one would be refused, and no start would go on."""
CHANGED = [name for name in VALUES if name != "listener_key"]
BESIDE = {
    *ArchiveSettings.model_fields,
    *CollectSettings.model_fields,
    *ExportSettings.model_fields,
    *ReadSettings.model_fields,
    *(name for name in Settings.model_fields if name.startswith(("kafka_", "redis_", "metrics_"))),
    "namespace",
    "rows_namespace",
    "member_network",
    "recovery_dir",
    "plans",
}
"""Settings that no state is made of: of other processes, of connections, of places."""
FIXED = ("listener_key", "shards", "timezone", "app_rows")
SHRINKING = ("conversion_horizon", "click_window", "listen_window")


class After(StopSignal):
    """Stops a flow when its sources have looked so often."""

    def __init__(self, looks: int) -> None:
        self._left = looks
        super().__init__()

    @property
    def requested(self) -> bool:  # type: ignore[override]  # a field, which the flow only reads
        self._left -= 1
        return self._left < 0

    @requested.setter
    def requested(self, value: bool) -> None:
        pass


def log() -> str:
    """Pixels ten seconds apart, in their order, and conversions among them."""
    lines: list[dict[str, Any]] = [
        {
            "event": "impression",
            "placement_id": "p",
            "campaign_id": "c",
            "play_id": f"play{n}",
            "consent": True,
            "app": "an app",
            "platform": "listed" if n % 3 else "unlisted",
        }
        for n in range(PIXELS)
    ]
    for n in range(BOUGHT):
        bought = {"type": "purchase", "order_id": f"order{n}"}
        lines.insert(n * 21, {"event": "conversion", "campaign_id": "c", "conversion": bought})
    told = [
        one | {"event_id": f"e{n}", "listener_id": f"L{n % 5}", "ts": BEGAN_MS + 10_000 * n}
        for n, one in enumerate(lines)
    ]
    return "".join(json.dumps(one) + "\n" for one in told)


def refused(held: Mapping[str, Any], now: Mapping[str, Any]) -> set[str]:
    """The settings that a store which was used with all of `held` cannot follow."""
    wrong = {name for name in FIXED if now[name] != held[name]}
    off = {"attribution"} if held["attribution"] == "off" != now["attribution"] else set[str]()
    return wrong | off | {name for name in SHRINKING if now[name] > held[name]}


def binding_settings(held: Mapping[str, Any], now: Mapping[str, Any]) -> dict[str, Any]:
    """The settings that bind the store after a start."""
    least = {name: min(held[name], now[name]) for name in SHRINKING}
    off = {"attribution": "off"} if "off" in (held["attribution"], now["attribution"]) else {}
    return {**now, **least, **off}


def test_every_setting_of_the_flow_is_covered() -> None:
    assert set(Settings.model_fields) == BESIDE | {"listener_key", *CHANGED}


@profile(max_examples=8, suppress_health_check=list(HealthCheck))
@given(starts=st.lists(st.tuples(CHANGES, st.integers(0, 12), st.integers(1, 2)), min_size=2, max_size=4))
def test_any_changed_setting_is_followed_or_refused_with_advice(
    starts: list[tuple[dict[str, Any], int, int]],
    tmp_path_factory: pytest.TempPathFactory,
    settings_of: Callable[..., Settings],
    client: Client,
) -> None:
    directory = tmp_path_factory.mktemp("changed")
    (directory / "log.ndjson").write_text(log())
    plans = directory / "plans.csv"
    plans.write_text(
        "placement_id,booked,start,end,platforms\nq,9,2025-01-01T00:00Z,2026-01-01T00:00Z,listed\n"
    )
    recovery, files = directory / "recovery", [str(directory / "log.ndjson")]
    namespace = f"{directory.name}:v1"
    first = settings_of()
    now: dict[str, Any] = {name: getattr(first, name) for name in CHANGED} | {"listener_key": KEYS[0]}
    held: dict[str, Any] | None = None

    def start(wanted: dict[str, Any], stop: StopSignal, workers: int) -> None:
        known = {name: value for name, value in wanted.items() if name != "listener_key"}
        settings = settings_of(**known | {"namespace": namespace, "plans": plans})
        key = wanted["listener_key"]
        replay(files, settings, key, workers=workers, recovery_dir=recovery, stop=stop)

    for change, looks, workers in [*starts, ({}, 1_000_000, 1)]:
        wanted = now | change
        refusal: AudiopixelError | None = None
        try:
            start(wanted, After(looks), workers)
        except (SettingsError, StateError) as error:
            refusal = error
        if isinstance(refusal, SettingsError):  # settings that contradict each other
            assert "AUDIOPIXEL_" in str(refusal)
            continue
        wrong = set[str]() if held is None else refused(held, wanted)
        assert (refusal is not None) == bool(wrong), refusal
        if refusal is not None:
            assert any(f"set AUDIOPIXEL_{name.upper()} back" in str(refusal) for name in wrong)
            continue
        held, now = binding_settings(held or wanted, wanted), wanted
        assert not fresh(recovery)
        accounts = [client.hgetall(key) for key in client.scan_iter(f"{namespace}:partition:*")]
        accepted = sum(int(one["accepted"]) for one in accounts)
        counts = client.hgetall(f"{namespace}:placement:{{p}}").get("flight.impressions", "0")
        bought = client.hget(f"{namespace}:meta", "conversions_accepted") or "0"
        assert int(counts) + int(bought) == accepted
        if accepted == PIXELS + BOUGHT:
            break  # no message follows a log's end
    assert (int(counts), int(bought)) == (PIXELS, BOUGHT)
    listed, unlisted = (
        int(client.hget(f"{namespace}:platform:{{{name}}}", "flight.impressions") or 0)
        for name in ("listed", "unlisted")
    )
    assert listed == PIXELS - len(range(0, PIXELS, 3))
    labels = {change.get("labels") for change, _, _ in starts}
    if "planned" not in labels:
        assert unlisted == PIXELS - listed
    assert unlisted <= PIXELS - listed


def test_an_impression_keeps_its_reason_when_others_come_before_it(
    tmp_path: Path, settings_of: Callable[..., Settings], client: Client
) -> None:
    pixels = [
        {"event": "impression", "placement_id": "p", "play_id": f"{n}", "event_id": f"{n}"}
        | {"ts": BEGAN_MS + 10_000 * n, "user_agent": "spamware" if n % 2 else "x"}
        for n in range(100)
    ]
    file = tmp_path / "log.ndjson"
    file.write_text("".join(json.dumps(one) + "\n" for one in pixels))
    spam, fraud = {"spam": "spamware"}, {"fraud": "fraudware"}
    soon = timedelta(milliseconds=50)
    for agents, looks in ((spam, 6), (fraud | spam, 1_000_000)):
        now = settings_of(invalid_agents=agents, batch_messages=7, flush_interval=soon, save_interval=soon)
        replay([str(file)], now, KEYS[0], recovery_dir=tmp_path / "store", stop=After(looks))
    (day,) = client.scan_iter(f"{now.namespace}:days:*")
    told = client.hgetall(day)
    spam_seen = json.loads(told["invalid_traffic"])["spam"]
    assert json.loads(told["invalid_traffic"]) == {"spam": spam_seen}
    assert int(told["impressions"]) + spam_seen == 100
    assert spam_seen > 10
