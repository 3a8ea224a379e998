"""The collector's part of the methodology names what its numbers depend on, and no secret."""

from __future__ import annotations

import json
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


def test_a_change_of_the_edges_key_is_another_method_which_says_what_it_does_to_reach() -> None:
    before, between = method(collect_key=OLD), method(collect_key=NEW, collect_previous_keys=(OLD,))
    after = method(collect_key=NEW)
    assert len({before.hash, between.hash, after.hash}) == 3
    old, both, new = (json.loads(one.line[1])["pseudonyms"] for one in (before, between, after))
    assert (old["keys_before"], both["keys_before"], new["keys_before"]) == ([], [old["key"]], [])
    assert both["key"] == new["key"] != old["key"]
    assert "reach over the change counts both" in both["change"]


def test_a_method_has_no_key_in_it() -> None:
    text = repr(method(collect_key=NEW, collect_previous_keys=(OLD,)))
    assert OLD not in text
    assert NEW not in text
