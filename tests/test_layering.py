"""The house: who may import whom, and the steps whose names are keys of the recovery store."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
from bytewax.dataflow import Dataflow

from connectors.files import FileInput
from flows.pixels import STEPS, Sinks, build
from flows.settings import Settings
from flows.sinks import LinesSink, RedisSink
from flows.source import PixelSource, Stop

ROOT = Path(__file__).parents[1]
PACKAGES = ("flows", "connectors", "dashboards")
CORES = (
    *("align", "batches", "clock", "events", "intake", "ledger", "plays", "reach"),
    *("rows", "shards", "sketch", "split", "table", "windows"),
)


def modules(package: str) -> list[Path]:
    return sorted((ROOT / package).rglob("*.py"))


def imported(path: Path) -> set[str]:
    """Every module that a file imports anywhere in it, and `module.name` for what it imports from one."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: a relative import gives a module a second name"
            assert node.module
            found.add(node.module)
            found.update(f"{node.module}.{alias.name}" for alias in node.names)
    return found


def of_package(names: set[str], package: str) -> set[str]:
    return {name for name in names if name.split(".")[0] == package}


@pytest.mark.parametrize(
    ("package", "forbidden"), [("connectors", "flows"), ("connectors", "dashboards"), ("flows", "dashboards")]
)
def test_a_lower_layer_imports_nothing_of_a_higher_one(package: str, forbidden: str) -> None:
    assert modules(package)
    assert {
        path.name: bad for path in modules(package) if (bad := of_package(imported(path), forbidden))
    } == {}


def test_dashboards_know_of_flows_only_the_metrics_and_errors() -> None:
    allowed = ("flows.metrics", "flows.errors")
    used = {name for path in modules("dashboards") for name in of_package(imported(path), "flows")}
    outside = {name for name in used - {"flows"} if not name.startswith(allowed)}
    assert outside == set()


def reached(module: str) -> Iterator[str]:
    """All that importing `flows.<module>` imports, through every module of this project."""
    seen, waiting = set[str](), [f"flows.{module}"]
    while waiting:
        name = waiting.pop()
        path = ROOT / f"{name.replace('.', '/')}.py"
        if name in seen:
            continue
        seen.add(name)
        yield name
        if name.split(".")[0] in PACKAGES and path.exists():
            waiting += imported(path)


@pytest.mark.parametrize("core", CORES)
def test_a_pure_core_reaches_no_engine_however_indirectly(core: str) -> None:
    assert (ROOT / "flows" / f"{core}.py").exists()
    assert of_package(set(reached(core)), "bytewax") == set()


def test_the_oracle_shares_no_code_with_the_flow() -> None:
    ours = {name for name in reached("reconcile") if (ROOT / f"{name.replace('.', '/')}.py").exists()}
    own = ("decode", "fields", "pacing", "scan", "sql")
    assert ours == {"flows.errors", "flows.reconcile", *(f"flows.reconcile_{name}" for name in own)}


# Steps


def operators(flow: Any) -> Iterator[Any]:
    """All operators, of whatever depth."""
    for operator in flow.substeps:
        yield operator
        yield from operators(operator)


def unconnected() -> Dataflow:
    """The whole flow, with all its outputs, over sources and sinks of which none is opened."""
    values: dict[str, Any] = {"listener_key": "sixteen bytes !!", "shards": 2}
    settings = Settings(**values)
    source = FileInput([__file__])
    lines = LinesSink(lambda _: pytest.fail("opened"))
    outputs: dict[str, Any] = {field.name: lines for field in fields(Sinks) if field.name != "redis"}
    sinks = Sinks(RedisSink(settings, source), **outputs)
    return build(PixelSource(source, settings, settings.secret_listener_key(), Stop()), sinks, settings)


def test_the_steps_with_state_are_exactly_those_whose_names_never_change() -> None:
    kept = {"input", "stateful_batch", "output"}
    named = [one.step_id for one in operators(unconnected()) if type(one).__name__ in kept]
    assert sorted(named) == sorted(f"audiopixel.{step}" for step in STEPS)
    assert set(STEPS) >= {"intake", "plays", "rows", "ledger", "redis", "rejected", "minutes"}
