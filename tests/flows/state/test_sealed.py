"""Small files: whatever a disk does to one, it is refused, or says what was written."""

from __future__ import annotations

import os
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import settings as profile
from hypothesis import strategies as st

from flows.state import sealed
from flows.state.sealed import Damaged, Missing, checksum_of, put_sealed, read, read_sealed

FORM = msgspec.json.Decoder(list[dict[str, int]])
VALUES = st.lists(st.dictionaries(st.text(max_size=4), st.integers(0, 99), max_size=3), max_size=3)


def damaged(file: Path, value: list[dict[str, int]], body: bytes) -> bool:
    """True if a file of this content is refused; else it says `value`."""
    file.write_bytes(body)
    try:
        found = read_sealed(file, FORM)
    except Damaged:
        return True
    assert found == value
    return False


@profile(max_examples=5)
@given(VALUES)
def test_every_flipped_bit_and_truncation_is_found(
    tmp_path_factory: pytest.TempPathFactory, value: list[dict[str, int]]
) -> None:
    file = tmp_path_factory.mktemp("sealed") / "file"
    put_sealed(file, value)
    assert read_sealed(file, FORM) == value
    body = file.read_bytes()
    for at in range(len(body)):
        for bit in range(8):
            assert damaged(file, value, body[:at] + bytes([body[at] ^ 1 << bit]) + body[at + 1 :])
        damaged(file, value, body[:at])
        assert damaged(file, value, bytes(len(body)))
    assert damaged(file, value, b"")
    assert damaged(file, value, body + b"\n")


def test_a_handwritten_line_is_accepted_only_if_allowed(tmp_path: Path) -> None:
    for text in ('[{"a": 1}]', '[{"a": 1}]\n'):
        (tmp_path / "file").write_text(text)
        assert read_sealed(tmp_path / "file", FORM) == [{"a": 1}]
        with pytest.raises(Damaged):
            read_sealed(tmp_path / "file", FORM, bare_line=False)


def test_a_read_does_not_block_on_pipes_and_devices(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "device").symlink_to("/dev/zero")
    (tmp_path / "folder").mkdir()
    for name in ("pipe", "device", "folder"):
        for reads in (read, checksum_of, lambda path: read_sealed(path, FORM)):
            with pytest.raises(Damaged):
                reads(tmp_path / name)
    for path in (tmp_path / "none", tmp_path / "folder" / "none", tmp_path / "pipe" / "none"):
        with pytest.raises(Missing):
            read_sealed(path, FORM)


def test_a_small_file_is_small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sealed, "MAX_BYTES", 60)
    put_sealed(tmp_path / "file", [{"a": 1}])
    assert read_sealed(tmp_path / "file", FORM) == [{"a": 1}]
    put_sealed(tmp_path / "file", [{"a": 1}] * 8)
    with pytest.raises(Damaged):
        read_sealed(tmp_path / "file", FORM)
