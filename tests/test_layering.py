"""The house: the allowed imports of each room, and the steps whose names are keys of the recovery store."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import fields
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from bytewax.dataflow import Dataflow
from save_support import STEPS

from connectors.files import FileInput
from flows.engine import LinesSink, PixelSource, RedisSink, StopSignal
from flows.pixels import Sinks, build
from flows.settings import Settings

ROOT = Path(__file__).parents[1]
STAGES = ("intake", "plays", "attribution", "clients", "rows", "silence", "delivery", "publish")
DOORS = (*STAGES, "engine", "settings", "reconcile", "simulate", "exports", "archive", "recompute")
BEHIND_NO_DOOR = ("flows.settings.remedies", "flows.settings.show")
"""They load what a door must not: Kafka's client, tables."""


class Import(NamedTuple):
    """An import: its place, and the module that it names."""

    by: str
    module: str


def module_of(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def is_module(name: str) -> bool:
    path = ROOT / name.replace(".", "/")
    return path.with_name(f"{path.name}.py").exists() or (path / "__init__.py").exists()


@cache
def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text())


@cache
def imports(package: str, root: Path = ROOT) -> list[Import]:
    """Every import of a package's files, those within functions too; a module counts as itself."""
    found = []
    for path in sorted((root / package).rglob("*.py")):
        by = ".".join(path.relative_to(root).with_suffix("").parts).removesuffix(".__init__")
        for node in ast.walk(tree_of(path)):
            if isinstance(node, ast.Import):
                found += [Import(by, alias.name) for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                assert node.level == 0, f"{path}: a relative import gives a module a second name"
                assert node.module
                names = [f"{node.module}.{alias.name}" for alias in node.names]
                found += [Import(by, name if is_module(name) else node.module) for name in names]
    return found


def room(module: str) -> str:
    return module.split(".")[1] if module.count(".") else ""


def imports_in(found: list[Import], *rooms: str) -> list[Import]:
    """The imports that stand in one of the rooms."""
    return [one for one in found if room(one.by) in rooms]


def own_imports(found: list[Import], package: str = "flows") -> list[Import]:
    return [one for one in found if one.module.split(".")[0] == package]


@pytest.mark.parametrize(
    ("package", "forbidden"), [("connectors", "flows"), ("connectors", "dashboards"), ("flows", "dashboards")]
)
def test_a_lower_layer_imports_nothing_of_a_higher_one(package: str, forbidden: str) -> None:
    found = imports(package)
    assert found
    assert own_imports(found, forbidden) == []


def test_dashboards_import_only_metrics_errors_and_settings() -> None:
    known = {"flows.metrics", "flows.process_metrics", "flows.errors"}
    for one in own_imports(imports("dashboards")):
        assert one.module in known | ({"flows.settings"} if one.by == "dashboards.__main__" else set())


def siblings(found: list[Import]) -> list[Import]:
    """Imports of a stage by a stage; publish may use delivery, and nothing else."""
    found = [one for one in imports_in(found, *STAGES) if room(one.module) in STAGES]
    crossing = [one for one in found if room(one.module) != room(one.by)]
    return [one for one in crossing if (room(one.by), room(one.module)) != ("publish", "delivery")]


def test_stages_never_import_each_other() -> None:
    assert siblings(imports("flows")) == []


def test_stages_import_only_their_common_ground() -> None:
    ground = {"model", "state", "settings", "errors", "instruments", "metrics", "delivery", "sentence"}
    reached = {
        room(one.module)
        for one in own_imports(imports_in(imports("flows"), *STAGES))
        if room(one.by) != room(one.module)
    }
    assert reached <= ground


def test_the_sentence_knows_only_published_fields() -> None:
    found = {room(one.module) for one in own_imports(imports_in(imports("flows"), "sentence"))}
    assert found <= {"sentence"}


def test_model_imports_only_array_types_and_state_only_errors() -> None:
    found = imports("flows")
    words = {one.module for one in own_imports(imports_in(found, "model")) if room(one.module) != "model"}
    tools = {one.module for one in own_imports(imports_in(found, "state")) if room(one.module) != "state"}
    assert words <= {"flows.state.arrays", "flows.errors"}
    assert tools <= {"flows.errors"}


def test_only_the_engine_and_the_page_of_the_flow_reach_bytewax() -> None:
    reaching = {one.by for one in own_imports(imports("flows"), "bytewax")}
    assert {room(by) for by in reaching} == {"engine", "pixels"}


@pytest.mark.parametrize("beside", ["viewers", "collector", "demo", "exports"])
def test_rooms_beside_the_flow_import_no_stage(beside: str) -> None:
    found = imports_in(imports("flows"), beside)
    assert found
    assert [one for one in found if room(one.module) in (*STAGES, "engine", "pixels")] == []


def test_no_room_imports_the_command_line() -> None:
    assert [one for one in imports("flows") if room(one.module) == "cli" and room(one.by) != "cli"] == []


def test_the_engine_reaches_no_viewer() -> None:
    assert [one for one in imports_in(imports("flows"), "engine") if room(one.module) == "viewers"] == []


def test_the_oracle_and_the_simulator_share_no_code_with_the_flow() -> None:
    for apart in ("reconcile", "simulate"):
        reached = {
            one.module
            for one in own_imports(imports_in(imports("flows"), apart))
            if room(one.module) != apart
        }
        names = {one for one in reached if one.startswith("flows.model.catalogue.")}
        assert reached - names <= {"flows.errors", "flows.shown"}, apart


def test_the_catalogue_is_data_and_imports_nothing_of_ours() -> None:
    catalogue = [one for one in imports("flows") if one.by.startswith("flows.model.catalogue")]
    assert {one.module.split(".")[0] for one in catalogue} == {"__future__", "enum", "typing"}


def passing(found: list[Import]) -> list[Import]:
    """Imports of what lies behind another room's door."""
    deep = [one for one in own_imports(found) if one.module.count(".") > 1 and room(one.module) in DOORS]
    return [one for one in deep if room(one.by) != room(one.module) and one.module not in BEHIND_NO_DOOR]


def test_imports_of_a_room_go_through_its_door() -> None:
    assert passing([*imports("flows"), *imports("connectors"), *imports("dashboards")]) == []


@pytest.mark.parametrize(
    "door", [f"flows.{name}" for name in DOORS] + ["connectors.redis", "connectors.kafka"]
)
def test_a_door_lists_its_exports(door: str) -> None:
    tree = ast.parse((ROOT / door.replace(".", "/") / "__init__.py").read_text())
    handed = {alias.name for node in tree.body if isinstance(node, ast.ImportFrom) for alias in node.names}
    (named,) = [node.value for node in tree.body if isinstance(node, ast.Assign)]
    assert set(ast.literal_eval(named)) == handed - {"annotations"}
    assert len(ast.get_docstring(tree) or "") > 40


def test_a_broken_layering_rule_is_found(tmp_path: Path) -> None:
    package = tmp_path / "flows" / "plays"
    package.mkdir(parents=True)
    (package / "bad.py").write_text(
        "from flows.rows import RowShard\nfrom flows.settings.load import load\nimport bytewax\n"
    )
    found = imports("flows", tmp_path)
    assert [one.module for one in siblings(found)] == ["flows.rows"]
    assert [one.module for one in passing(found)] == ["flows.settings.load"]
    assert [one.by for one in own_imports(found, "bytewax")] == ["flows.plays.bad"]


# Size

PACKAGES = ("flows", "connectors", "dashboards", "benchmarks")
LOOPS = ("kernel", "lean", "compiled")
"""Decorators of loops, which take columns, and are one function since each call costs them."""
COMMANDS = ("command", "app.command()")
"""Decorators of commands, whose parameters are their options, and their help."""


class Function(NamedTuple):
    """A function, its decorators, and where it stands."""

    module: str
    node: ast.FunctionDef | ast.AsyncFunctionDef

    def is_one_of(self, *decorators: str) -> bool:
        return not {ast.unparse(one) for one in self.node.decorator_list}.isdisjoint(decorators)

    def lines(self) -> int:
        """Its lines, those of a command from its docstring on."""
        assert self.node.end_lineno is not None
        begin = self.node.body[0] if self.is_one_of(*COMMANDS) else self.node
        return self.node.end_lineno - begin.lineno + 1


class Source(NamedTuple):
    """A module's path and its tree."""

    name: str
    tree: ast.Module


@cache
def sources() -> list[Source]:
    paths = [path for package in PACKAGES for path in sorted((ROOT / package).rglob("*.py"))]
    return [Source(str(path.relative_to(ROOT)), tree_of(path)) for path in paths]


def functions(found: list[Source]) -> list[Function]:
    return [
        Function(one.name, node)
        for one in found
        for node in ast.walk(one.tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    ]


def long_functions(found: list[Source]) -> list[str]:
    return [
        f"{one.module}: {one.node.name}"
        for one in functions(found)
        if one.lines() > 80 and not one.is_one_of(*LOOPS)
    ]


def long_calls(found: list[Source]) -> list[str]:
    """Calls of more than eight arguments whose names the reader does not see."""
    loops = {one.node.name for one in functions(found) if one.is_one_of(*LOOPS)}
    return [
        f"{one.name}:{node.lineno}"
        for one in found
        for node in ast.walk(one.tree)
        if isinstance(node, ast.Call)
        and len(node.args) > 8
        and ast.unparse(node.func).rpartition(".")[2] not in loops
    ]


def test_no_function_but_a_loop_has_more_than_80_lines() -> None:
    assert long_functions(sources()) == []


def test_only_a_loops_call_has_over_eight_positional_arguments() -> None:
    assert long_calls(sources()) == []


def test_a_function_takes_at_most_ten_parameters() -> None:
    many = [
        f"{one.module}: {one.node.name}"
        for one in functions(sources())
        if len((*one.node.args.posonlyargs, *one.node.args.args, *one.node.args.kwonlyargs)) > 10
        and not one.is_one_of(*LOOPS, *COMMANDS)
    ]
    assert many == []


def test_a_broken_rule_of_size_is_found() -> None:
    body = "\n    pass" * 80
    text = f"def long():{body}\n\n\n@kernel\ndef loop():{body}\n\n\nf(1, 2, 3, 4, 5, 6, 7, 8, 9)\n"
    assert long_functions([Source("a", ast.parse(text))]) == ["a: long"]
    other = Source("b", ast.parse("loop(1, 2, 3, 4, 5, 6, 7, 8, 9)"))
    assert long_calls([Source("a", ast.parse(text)), other]) == ["a:168"]


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
    stop = StopSignal(1000)
    return build(PixelSource(source, settings, settings.secret_listener_key(), stop), sinks, settings)


def test_stateful_steps_are_exactly_those_with_fixed_names() -> None:
    kept = {"input", "stateful_batch", "output"}
    named = [one.step_id for one in operators(unconnected()) if type(one).__name__ in kept]
    assert sorted(named) == sorted(f"audiopixel.{step}" for step in STEPS)
    assert set(STEPS) >= {"intake", "plays", "rows", "ledger", "redis", "rejected", "minutes"}
