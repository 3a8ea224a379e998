"""Paths and conditions on messages."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flows.collector.body import Unreadable
from flows.sources.paths import Condition, Message, Path

DOCUMENT = {
    "event": "Ad Started",
    "a": {"b": [{"c": 1}, {"c": 2}]},
    "text": '{"deep": {"er": "x"}, "list": [1, 2]}',
    "broken": '{"deep": ',
    "headers": [{"name": "User-Agent", "value": "VLC/3.0"}],
    "a dotted.name": 7,
    "none": None,
    "empty": "",
    "list": [],
    "no": False,
    "tags": ["ads", 7, True],
}
RECORD = Message(DOCUMENT, "topic", 3, 17, 1_795_600_000_000, b"key", {"x": b"1"})


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("event", "Ad Started"),
        ("a.b[0].c", 1),
        ("a.b[-1].c", 2),
        ("a.b[2].c", None),
        ("a.b.c", Unreadable),
        ("a.b[0].c.d", Unreadable),
        ("no.further", Unreadable),
        ("a[0]", Unreadable),
        ('event[name="x"]', Unreadable),
        ('a[name="x"]', Unreadable),
        ("empty.further", None),
        ("list.further", None),
        ("text.deep.er", "x"),
        ("text.list[1]", 2),
        ('headers[name="user-agent"].value', "VLC/3.0"),
        ('headers[name="Host"].value', None),
        ('"a dotted.name"', 7),
        ("a dotted.name", 7),
        ("none", None),
        ("event.further", Unreadable),
        ("broken.deep", Unreadable),
        ("$key", "key"),
        ("$timestamp", 1_795_600_000_000),
        ("$partition", 3),
        ("$offset", 17),
        ("$headers.x", "1"),
        ("$headers.y", None),
    ],
)
def test_a_path_leads_to_a_value(path: str, value: Any) -> None:
    found = Path(path).value_in(RECORD)
    assert isinstance(found, Unreadable) if value is Unreadable else found == value


@pytest.mark.parametrize("text", ["", ".a", "a..b", "[0]", "a[x]", "$nothing", "a" * 600, "a" + ".b" * 20])
def test_an_invalid_path_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"path|record|steps"):
        Path(text)


@pytest.mark.parametrize(
    ("condition", "holds"),
    [
        ("event=Ad Started", True),
        ("event=Other|Ad Started", True),
        ("event!=Ad Started", False),
        ("event!=Other", True),
        ("missing!=Other", True),
        ("missing=", False),
        ("event", True),
        ("!event", False),
        ("empty", False),
        ("!missing", True),
        ("broken.deep", True),
        ("!broken.deep", False),
        ("broken.deep=x", None),
        ("broken.deep!=x", None),
        ("broken.deep=x & event=Other", False),
        ("no=false", True),
        ("a.b[0].c=1 & event=Ad Started", True),
        ("a.b[0].c=1 & event=Other", False),
        ('headers[name="User-Agent"].value=VLC/3.0', True),
        ("tags contains ads", True),
        ("tags contains news | ads", True),
        ("tags contains news", False),
        ("tags contains 7", True),
        ("tags contains ads & event=Other", False),
        ("missing contains ads", False),
        ("event contains Ad Started", None),
        ("broken.deep contains ads", None),
    ],
)
def test_a_condition_holds_or_not(condition: str, holds: bool | None) -> None:
    assert Condition(condition).holds(RECORD) is holds


VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=20)
    | st.just('{"a": {"a": 1}}'),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("abc"), inner, max_size=3),
    max_leaves=20,
)


@given(VALUES, st.lists(st.sampled_from(["a", "b", "[0]", "[-1]", '[a="x"]']), min_size=1, max_size=6))
def test_a_path_raises_for_no_message(value: Any, steps: list[str]) -> None:
    path = Path("a" + "".join(one if one.startswith("[") else f".{one}" for one in steps))
    path.value_in(Message({"a": value}))
    Condition(f"{path.text}=1").holds(Message({"a": value}))
