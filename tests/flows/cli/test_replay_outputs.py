"""The files of `replay --out` are rewritten by each replay, complete, and usable by later commands."""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from connectors.redis.client import Client
from connectors.stream import ConnectError
from flows.cli.commands import app
from flows.engine.source import StopSignal
from flows.errors import SettingsError, UsageError
from flows.methodology import methodology
from flows.replay import METHODOLOGY, OUTPUTS, replay
from flows.settings.fields import Settings

KEY = b"a key of sixteen bytes or more"
T0 = 1_790_000_040_000
Line = dict[str, Any]


def pixel(n: int, at_ms: int = 0, event: str = "impression", **more: Any) -> Line:
    known = {"event_id": f"e{n}", "event": event, "ts": T0 + at_ms, "listener_id": f"l{n}", "consent": True}
    return known | ({} if event == "conversion" else {"placement_id": "p"}) | more


def bought(n: int) -> Line:
    return pixel(n, 1000, "conversion", conversion={"type": "purchase", "order_id": f"o{n}"})


CLEAN = [pixel(n, n) for n in range(30)]
LATE = [bought(1), pixel(1, 86_000_000), *(pixel(n) for n in range(2, 30))]


def written(path: Path, lines: list[Line]) -> str:
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return str(path)


class Soon(StopSignal):
    """A stop that comes amid a log: its partition looks before each batch."""

    looks = 0

    def __getattribute__(self, name: str) -> Any:
        if name == "requested":
            self.looks += 1
            return self.looks > 40
        return super().__getattribute__(name)


def texts(directory: Path) -> dict[str, str]:
    return {path.name: path.read_text() for path in directory.iterdir()}


def test_no_line_of_an_earlier_replay_is_left(
    tmp_path: Path, settings_of: Callable[..., Settings], client: Client
) -> None:
    settings, out = settings_of(reject_share=1.0), tmp_path / "out"
    replay([written(tmp_path / "late.ndjson", LATE)], settings, KEY, out=out)
    assert texts(out).keys() == {*OUTPUTS, METHODOLOGY}
    assert all(texts(out).values())
    replay([written(tmp_path / "clean.ndjson", CLEAN)], settings, KEY, out=out, recompute=True)
    fresh = tmp_path / "fresh"
    replay([str(tmp_path / "clean.ndjson")], settings, KEY, out=fresh, recompute=True)
    assert texts(out).keys() == texts(fresh).keys() == {*OUTPUTS, METHODOLOGY}
    assert sorted(name for name, text in texts(out).items() if text) == [METHODOLOGY, "minutes.ndjson"]
    assert json.loads(texts(out)[METHODOLOGY])["hash"] == methodology(settings).hash


def test_reconcile_accepts_the_outputs_of_a_clean_replay(
    tmp_path: Path, settings_of: Callable[..., Settings]
) -> None:
    settings, out = settings_of(), tmp_path / "out"
    log = written(tmp_path / "clean.ndjson", CLEAN)
    replay([log], settings, KEY, out=out)
    told = {
        "AUDIOPIXEL_REDIS_URL": settings.redis_url.get_secret_value(),
        "AUDIOPIXEL_NAMESPACE": settings.namespace,
    }
    files = ["--rejected", str(out / "rejected.ndjson"), "--minutes", str(out / "minutes.ndjson")]
    done = CliRunner().invoke(app, ["reconcile", log, *files], env=told)
    assert (done.exit_code, done.output.startswith("0 differences")) == (0, True), done.output


def test_a_refused_replay_leaves_its_files_unchanged(
    tmp_path: Path, settings_of: Callable[..., Settings]
) -> None:
    settings, out = settings_of(reject_share=1.0), tmp_path / "out"
    replay([written(tmp_path / "late.ndjson", LATE)], settings, KEY, out=out)
    before = texts(out)
    with pytest.raises(SettingsError, match="holds numbers of"):
        replay([written(tmp_path / "clean.ndjson", CLEAN)], settings, KEY, out=out)
    with pytest.raises(ConnectError, match="no such file"):
        replay([str(tmp_path / "absent")], settings, KEY, out=out)
    with pytest.raises(UsageError, match="would be written over: give --out another directory"):
        replay([str(out / "rejected.ndjson")], settings, KEY, out=out, recompute=True)
    assert texts(out) == before


def test_an_interrupted_replay_resumes_only_with_its_own_files(
    tmp_path: Path, settings_of: Callable[..., Settings]
) -> None:
    """Stopped amid the log, and gone on with in a directory where somebody else's files are."""
    settings = settings_of(batch_messages=50)
    lines = [pixel(n, n * 1000) for n in range(3000)]
    log = written(tmp_path / "log.ndjson", lines)
    whole, out, recovery = tmp_path / "whole", tmp_path / "out", tmp_path / "recovery"
    replay([log], settings, KEY, out=whole)
    out.mkdir()
    for name in OUTPUTS:
        (out / name).write_text('{"of":"another log"}\n')
    stop = Soon()
    replay([log], settings, KEY, out=out, recovery_dir=recovery, recompute=True, stop=stop)
    assert '"final"' in texts(out)["minutes.ndjson"]
    assert len(texts(out)["minutes.ndjson"]) < len(texts(whole)["minutes.ndjson"])
    (out / "rejected.ndjson").write_text('{"of":"another log"}\n')
    replay([log], settings, KEY, out=out, recovery_dir=recovery)
    finals = {}
    for directory in (whole, out):
        minutes = [json.loads(line) for line in texts(directory)["minutes.ndjson"].splitlines()]
        finals[directory] = sorted(
            (m["minute_ms"], m["impressions"]) for m in minutes if m["state"] == "final"
        )
    assert finals[out] == finals[whole]
    assert texts(out)["rejected.ndjson"] == texts(out)["credits.ndjson"] == ""


def test_two_replays_do_not_write_into_one_directory(
    tmp_path: Path, settings_of: Callable[..., Settings]
) -> None:
    settings, out, log = settings_of(), tmp_path / "out", written(tmp_path / "log.ndjson", CLEAN)
    replay([log], settings, KEY, out=out)
    before = texts(out)
    held = os.open(out, os.O_RDONLY)
    fcntl.flock(held, fcntl.LOCK_EX)
    with pytest.raises(UsageError, match="another replay writes to"):
        replay([log], settings, KEY, out=out, recompute=True)
    assert texts(out) == before
    os.close(held)
    replay([log], settings, KEY, out=out, recompute=True)
