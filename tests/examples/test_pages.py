"""Commands of the pages for newcomers do what the pages show."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from audiopixel_client import Client
from audiopixel_client.testing import fill
from redis import Redis
from redis.exceptions import NoPermissionError

from connectors.embedded import EmbeddedValkey

DOCS = Path(__file__).parents[2] / "docs"


def test_the_page_shows_the_first_pixels_tag() -> None:
    page = (DOCS / "first-pixel.md").read_text()
    exports = [shlex.split(line)[1:] for line in page.splitlines() if line.startswith("export ")]
    settings = dict(one.split("=", 1) for line in exports for one in line)
    assert len(settings) == 6
    options = re.findall(r"TAG=\$\(audiopixel (tag [^)]*)\)", page)
    command = [str(Path(sys.executable).with_name("audiopixel")), *options[0].split()]
    with EmbeddedValkey() as server:
        environment = os.environ | settings | {"AUDIOPIXEL_REDIS_URL": server.url}
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    for shown in (*done.stdout.splitlines(), *done.stderr.splitlines()):
        assert shown in page.splitlines()


def test_a_bidders_user_reads_rows_and_writes_nothing() -> None:
    line = re.findall(r"^(ACL SETUSER bidder .*)$", (DOCS / "production.md").read_text(), re.M)[0]
    with EmbeddedValkey() as server, Redis.from_url(server.url) as redis:
        redis.execute_command(*line.replace("SECRET", "s3cret").split())
        fill(server.url)
        url = server.url.replace("redis://", "redis://bidder:s3cret@")
        with Client(url, placements=["usable"]) as client:
            assert client["usable"].factor == 1.25, client.error
        with Redis.from_url(url) as bidder, pytest.raises(NoPermissionError):
            bidder.hset("audiopixel:v1:meta", "judged", "1")
