"""The collector's part of the methodology names what its numbers depend on, and no secret."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any, Final

from flows.collector.from_settings import understanding_of
from flows.collector.method import Method, method_of
from flows.settings.loading import load

OLD, NEW = "the key of before, 16 bytes", "the key of today, 16 bytes"
REDIS: Final = "redis://127.0.0.1:1/0"


def method(**settings: Any) -> Method:
    read = load(redis_url=REDIS, listener_key="k" * 16, collect_signing_keys={"a1": "s" * 16}, **settings)
    understanding = understanding_of(read)
    return method_of(read, understanding.judge.hashes, understanding.pseudonyms.key_ids)


def test_a_new_edge_key_changes_the_method_and_explains_reach() -> None:
    before, between = method(collect_key=OLD), method(collect_key=NEW, collect_previous_keys=(OLD,))
    after = method(collect_key=NEW)
    assert len({before.hash, between.hash, after.hash}) == 3
    old, both, new = (json.loads(one.line[1])["pseudonyms"] for one in (before, between, after))
    assert (old["keys_before"], both["keys_before"], new["keys_before"]) == ([], [old["key"]], [])
    assert both["key"] == new["key"] != old["key"]
    assert "reach across the change counts both" in both["change"]


def test_trust_and_dialects_are_parts_of_the_method(tmp_path: Path) -> None:
    dialects, token = tmp_path / "dialects.toml", {"sha256": "0" * 64, "rights": ["write"]}
    own = '[dialect.mine]\nsource = "us"\nstatus = "inferred"\nuse = "tag"\n'
    dialects.write_text(own)
    found = [
        method(collect_key=NEW),
        method(collect_key=NEW, collect_servers={"9.9.9.0/24": "x-device"}),
        method(collect_key=NEW, collect_proxies=("9.9.9.9/32",)),
        method(collect_key=NEW, collect_tokens={"host": token}),
        method(collect_key=NEW, collect_tokens={"host": token | {"masked": True}}),
        method(collect_key=NEW, collect_dialects=dialects),
    ]
    dialects.write_text(own + 'fixed = {basis = "ad_delivered"}\n')
    found.append(method(collect_key=NEW, collect_dialects=dialects))
    assert len({one.hash for one in found}) == len(found)
    other = method(collect_key=NEW, collect_tokens={"host": token | {"sha256": "1" * 64}})
    assert other.hash == found[3].hash, "a new secret of a token changes no number"


def test_a_copied_list_is_the_same_method(tmp_path: Path) -> None:
    networks, found = tmp_path / "networks.txt", list[Method]()
    networks.write_text("35.180.0.0/16\n")
    for moment in (1_700_000_000, 1_780_000_000):
        os.utime(networks, (moment, moment))
        found.append(method(collect_key=NEW, collect_lists={"data_centres": networks}))
    assert found[0].hash == found[1].hash
    dated = [json.loads(one.line[1])["lists_dated"]["data_centres"] for one in found]
    assert dated == ["2023-11-14", "2026-05-28"]


def test_a_method_has_no_key_in_it() -> None:
    text = repr(method(collect_key=NEW, collect_previous_keys=(OLD,)))
    assert OLD not in text
    assert NEW not in text
