"""The places of a source file that a mutant may change, and the changed text."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from random import Random
from typing import Final, NamedTuple

_COMPARED: Final[dict[type[ast.cmpop], type[ast.cmpop]]] = {
    ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Eq: ast.NotEq, ast.NotEq: ast.Eq,
    ast.In: ast.NotIn, ast.NotIn: ast.In, ast.Is: ast.IsNot, ast.IsNot: ast.Is,
}  # fmt: skip
_COUNTED: Final[dict[type[ast.operator], type[ast.operator]]] = {
    ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.FloorDiv, ast.FloorDiv: ast.Mult, ast.Mod: ast.Mult,
    ast.BitOr: ast.BitAnd, ast.BitAnd: ast.BitOr, ast.LShift: ast.RShift, ast.RShift: ast.LShift,
}  # fmt: skip


class Mutant(NamedTuple):
    """A changed file.

    Attributes:
        path: of the file, from the project's root.
        line: of the change, from 1.
        kind: `compare`, `operator`, `junction`, `constant`, `condition` or `call`.
        before, after: the changed text.
        text: of the whole file, changed.
    """

    path: str
    line: int
    kind: str
    before: str
    after: str
    text: str


def sites(tree: ast.AST) -> Iterator[tuple[str, ast.expr | ast.Expr]]:
    """The kinds and nodes of all places. Annotations, decorators and docstrings are none."""
    skipped: set[int] = set()
    for node in ast.walk(tree):
        if id(node) in skipped:
            skipped.update(map(id, ast.iter_child_nodes(node)))
            continue
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            skipped.update(map(id, node.decorator_list))
            if not isinstance(node, ast.ClassDef) and node.returns is not None:
                skipped.add(id(node.returns))
        elif isinstance(node, ast.AnnAssign | ast.arg) and node.annotation is not None:
            skipped.add(id(node.annotation))
        elif isinstance(node, ast.Expr):
            if isinstance(node.value, ast.Call | ast.Await):
                yield "call", node
            elif isinstance(node.value, ast.Constant):
                skipped.add(id(node.value))
        elif isinstance(node, ast.Compare) and len(node.ops) == 1 and type(node.ops[0]) in _COMPARED:
            yield "compare", node
        elif isinstance(node, ast.BinOp) and type(node.op) in _COUNTED and not _is_text(node):
            yield "operator", node
        elif isinstance(node, ast.BoolOp):
            yield "junction", node
        elif isinstance(node, ast.Constant) and isinstance(node.value, bool | int):
            yield "constant", node
        elif isinstance(node, ast.If | ast.While | ast.IfExp) and not isinstance(
            node.test, ast.Compare | ast.BoolOp
        ):
            yield "condition", node.test


def _is_text(node: ast.BinOp) -> bool:
    sides = (node.left, node.right)
    return any(isinstance(one, ast.JoinedStr) or isinstance(getattr(one, "value", 0), str) for one in sides)


def mutant_of(path: str, text: str, kind: str, node: ast.expr | ast.Expr, rng: Random) -> Mutant:
    """The file with one place changed."""
    lines = text.encode().splitlines(keepends=True)
    assert node.end_lineno is not None
    assert node.end_col_offset is not None
    begin = sum(map(len, lines[: node.lineno - 1])) + node.col_offset
    end = sum(map(len, lines[: node.end_lineno - 1])) + node.end_col_offset
    whole = text.encode()
    after = _changed(kind, node, rng)
    changed = whole[:begin] + after.encode() + whole[end:]
    return Mutant(path, node.lineno, kind, whole[begin:end].decode(), after, changed.decode())


def _changed(kind: str, node: ast.expr | ast.Expr, rng: Random) -> str:
    if kind == "call":
        return "pass"
    if kind == "condition":
        return f"(not ({ast.unparse(node)}))"
    if isinstance(node, ast.Compare):
        node.ops[0] = _COMPARED[type(node.ops[0])]()
    elif isinstance(node, ast.BinOp):
        node.op = _COUNTED[type(node.op)]()
    elif isinstance(node, ast.BoolOp):
        node.op = ast.Or() if isinstance(node.op, ast.And) else ast.And()
    elif isinstance(node, ast.Constant):
        node.value = not node.value if isinstance(node.value, bool) else int(node.value) + rng.choice((1, -1))
    return f"({ast.unparse(node)})"
