"""A Redis, and the bidder's client in each language."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from client_support import NodeReader, Opens, PythonReader, Reader, node_folder

from connectors.embedded import EmbeddedValkey


@pytest.fixture(scope="session")
def valkey() -> Iterator[EmbeddedValkey]:
    with EmbeddedValkey() as server:
        yield server


@pytest.fixture(scope="session")
def node(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return node_folder(tmp_path_factory.mktemp("node"))


@pytest.fixture(params=["python", "node"])
def opens(request: pytest.FixtureRequest) -> Iterator[Opens]:
    """Opens a client of each language in turn: its URL, and options of the Python client."""
    opened = list[Reader]()
    folder = request.getfixturevalue("node") if request.param == "node" else None

    def reader(url: str, **options: Any) -> Reader:
        opened.append(NodeReader(folder, url, options) if folder else PythonReader(url, options))
        return opened[-1]

    yield reader
    for one in opened:
        one.close()
