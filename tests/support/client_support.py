"""Readers of the bidder's clients, in two languages, for tests that hold both to the same."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from audiopixel_client import Client

ROOT = Path(__file__).parents[2]
NODE = ROOT / "clients" / "node"


class Look(NamedTuple):
    """A row as it was seen, from its first to its last reading in a row (epoch ms)."""

    name: str
    first_ms: float
    last_ms: float
    reason: str | None
    factor: float | None
    version: list[int]
    fields: dict[str, Any]


class Reader(ABC):
    """A client that is open."""

    @abstractmethod
    def read(self, name: str, fields: Sequence[str] = ()) -> dict[str, Any]:
        """The client's answer for a row: `usable reason factor blocked version fields` (as texts), or
        `error`.
        """

    @abstractmethod
    def watch(self, names: Sequence[str], fields: Sequence[str], ms: int) -> tuple[int, list[Look]]:
        """Read rows again and again for so long; returns how often, and what was seen."""

    @abstractmethod
    def close(self) -> None:
        """End it."""


Opens = Callable[..., Reader]
"""Opens a client: its URL, and options of the Python client by name."""


class PythonReader(Reader):
    """The Python client in this process."""

    def __init__(self, url: str, options: Mapping[str, Any]) -> None:
        reviewed = options.get("reviewed", {})
        self.client = Client(url, **{name: value for name, value in options.items() if name != "reviewed"})
        self.client.reviewed.update(reviewed)
        self.client.__enter__()

    def read(self, name: str, fields: Sequence[str] = ()) -> dict[str, Any]:
        try:
            row = self.client[name]
        except KeyError:
            return {"error": True}
        told = {name: getattr(row, name) for name in ("usable", "reason", "factor", "blocked")}
        texts = {name: str(row[name]) if name in row else "not read" for name in fields}
        return {**told, "version": list(row.version), "fields": texts}

    def watch(self, names: Sequence[str], fields: Sequence[str], ms: int) -> tuple[int, list[Look]]:
        until_s, reads, looks, last = time.monotonic() + ms / 1000, 0, list[Look](), dict[str, Look]()
        while time.monotonic() < until_s:
            for name in names:
                row, before, at_ms = self.client[name], last.get(name), time.time() * 1000
                reads += 1
                key = (row.reason, list(row.version))
                if before is not None and (before.reason, before.version) == key:
                    last[name] = before._replace(last_ms=at_ms)
                    continue
                if before is not None:
                    looks.append(before)
                values = {field: row[field] for field in fields}
                last[name] = Look(name, at_ms, at_ms, key[0], row.factor, key[1], values)
            time.sleep(0.001)
        return reads, [*looks, *last.values()]

    def close(self) -> None:
        self.client.__exit__()


class NodeReader(Reader):
    """The Node client in a process of its own."""

    def __init__(self, folder: Path, url: str, options: Mapping[str, Any]) -> None:
        command = ["node", str(folder / "reader.mjs"), url, json.dumps(options)]
        self._process = subprocess.Popen(
            command, cwd=folder, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self._answer()

    def _answer(self) -> Any:
        assert self._process.stdout is not None
        return json.loads(self._process.stdout.readline())

    def _ask(self, **question: Any) -> Any:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(question) + "\n")
        self._process.stdin.flush()
        return self._answer()

    def read(self, name: str, fields: Sequence[str] = ()) -> dict[str, Any]:
        found: dict[str, Any] = self._ask(read=name, fields=list(fields))
        return found

    def watch(self, names: Sequence[str], fields: Sequence[str], ms: int) -> tuple[int, list[Look]]:
        told = self._ask(watch=list(names), fields=list(fields), ms=ms)
        return told["reads"], [Look(*one) for one in told["looks"]]

    def close(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        try:
            assert self._process.wait(10) == 0
        finally:
            self._process.kill()


def node_folder(folder: Path) -> Path:
    """The Node client with what it needs, and the reader of the tests; skips where it cannot be had."""
    if shutil.which("npm") is None:
        pytest.skip("needs Node 20 and npm: apt-get install nodejs npm")
    for file in (*NODE.glob("*.js*"), ROOT / "tests" / "clients" / "reader.mjs"):
        shutil.copy(file, folder)
    command = ["npm", "install", "--silent", "--no-audit", "--no-fund", "--no-package-lock"]
    try:
        done = subprocess.run([*command, "--ignore-scripts"], cwd=folder, timeout=120, capture_output=True)
    except subprocess.TimeoutExpired:
        done = None
    if done is None or done.returncode:
        print(done and done.stderr, file=sys.stderr)
        pytest.skip("needs npm with its registry: npm install --prefix clients/node must work")
    return folder
