"""Hostile words, and damage to what is good: bytes, JSON documents and queries."""

from __future__ import annotations

import gzip
import json
from random import Random
from typing import Any, Final
from urllib.parse import quote, quote_plus

TEXTS: Final = (
    "", " ", "a", "null", "undefined", "none", "true", "NaN", "[X]", "%%X%%", "${X}", "{x}", "@X@", "{{x}}",
    "[UNKNOWN]", "a\x1b]0;owned\x07b", "a\x1b[2J\x9b2Jb", "a[/b]", "[bold]x[/bold]",
    "[link=https://e.example]x[/link]", "a:smile:b", "a:b:c", "a|b|c", "a}{b{0}%s%n", "x\r\ny\u2028z\n",
    "x\r\nset-cookie: y=z", "a\u202etxt.exe\u2066b", "\0x\x7f", '=cmd|"/c calc"!A1', "+1+1", "@SUM(A1)",
    "\t=1", "--help", "-o/tmp/x", "<script>alert(1)</script>", '"><img src=x onerror=alert(1)>',
    "'; drop table pixels; --", "../../etc/passwd", "//evil.example", "javascript:alert(1)", "http://[::1",
    "https://shop.example/?utm_source=a&utm_content=%ff", "\u3164\u2800\ufe0f\u034f", "\ufeffa", "\uffff",
    "é", "e\u0301" * 60, "\U0001d518" * 128, "広" * 128, "x" * 127, "x" * 128, "x" * 129, "é" * 129,
    "x" * 5_000, "%00", "%ff%fe", "%25255B", "%zz", "%", "%u0041", "'", '"', "\\", "\\u0000", "a,b;c", "a/b",
    "a&b=c", "#x", "a=b", "00000000-0000-0000-0000-000000000000", "::1", "::ffff:1.2.3.4%eth0", "1.2.3.4.5",
    "0x7f.1", "999.1.1.1", "9.9.9.9", "2026-13-45T99:00:00Z", "0001-01-01T00:00:00+23:59",
    "9999-12-31T23:59:59.999999Z", "2026-11-26T12:00:60Z", "24:60:60.1000", "-00:00:01", "P1D", "1e5", "GBP",
    "gbp", "purchase", "start", "conversion", "audible_2s",
)  # fmt: skip
LONE: Final = ("\ud800", "a\udc00b", "\udcff")
"""Half characters, which no encoder takes; as raw bytes they are `\\xed\\xa0\\x80` and the like."""
NUMBERS: Final = (
    "0", "-0", "-0.0", "1", "-1", "-2", "01", "+1", "1.", ".5", "1e3", "1e308", "1e309", "-1e309", "1e-400",
    "5e-324", "0.1", "NaN", "Infinity", "-Infinity", "0x10", "1_000", "\u0663", "1,5", "128", "129", "255",
    "256", "65535", "65536",
    *(str(by * 2**power + more) for power in (31, 32, 53, 63, 64) for more in (-1, 0, 1) for by in (1, -1)),
    "4102444799999", "4102444800000", "253402300799999", "253402300800000", "1" + "0" * 30, "9" * 400,
    "0" * 4_400 + "7", "9" * 5_000,
)  # fmt: skip
_PIECES: Final = (
    b"\x00", b"\n", b"\r\n", b"\t", b"\x1b", b"\x7f", b"\x80", b"\xff", b"\xfe\xff", b"\xc3\x28",
    b"\xed\xa0\x80", b"\xf4\x90\x80\x80", b"\xef\xbb\xbf", b"{", b"}", b"[", b"]", b'"', b"\\", b"\\u0000",
    b"\\ud800", b",", b":", b";", b"&", b"=", b"%", b"+", b"-", b"/", b"?", b"#", b"<", b"'", b" ", b"~",
    b".", b"null", b"true", b"{}", b"[]", b'""',
)  # fmt: skip


def word(rng: Random) -> str:
    """A hostile text or number; it may hold half a character."""
    dice = rng.random()
    if dice < 0.5:
        return rng.choice(TEXTS)
    if dice < 0.75:
        return rng.choice(NUMBERS)
    if dice < 0.8:
        return rng.choice(LONE)
    if dice < 0.9:
        return "".join(rng.choice(TEXTS)[:8] for _ in range(rng.randint(2, 4)))
    top = rng.choice((0x7F, 0x2FF, 0xFFFF, 0x10FFFF))
    return "".join(chr(rng.randint(0, top)) for _ in range(rng.randint(1, 12)))


def raw_of(text: str) -> bytes:
    """UTF-8, half characters too."""
    return text.encode("utf-8", "surrogatepass")


def damaged(raw: bytes, rng: Random) -> bytes:
    """Bytes of which some are others, gone, there twice, or more."""
    body = bytearray(raw)
    for _ in range(rng.choice((1, 1, 1, 2, 3, 8))):
        at, kind = rng.randrange(len(body) + 1), rng.randrange(7)
        some = rng.choice((1, 1, 2, 4, 16, 64))
        if kind == 0:
            body[at : at + 1] = rng.choice(_PIECES)
        elif kind == 1:
            del body[at : at + some]
        elif kind == 2:
            body[at:at] = rng.choice(_PIECES)
        elif kind == 3 and at < len(body):
            body[at] ^= 1 << rng.randrange(8)
        elif kind == 4:
            body[at:at] = body[at : at + some]
        elif kind == 5:
            body[at:at] = raw_of(word(rng))
        else:
            del body[rng.randrange(len(body) + 1) :]
    return bytes(body)


def _value(rng: Random) -> str:
    """The JSON text of a hostile value, which may be none."""
    dice = rng.random()
    if dice < 0.45:
        return json.dumps(word(rng), ensure_ascii=rng.random() < 0.5)
    if dice < 0.7:
        return rng.choice(NUMBERS)
    if dice < 0.75:
        deep = rng.choice((5, 200, 1_100))
        return rng.choice(("[" * deep + "]" * deep, '{"a":' * deep + "1" + "}" * deep))
    if dice < 0.8:
        return json.dumps([word(rng) for _ in range(rng.randint(0, 40))])
    return rng.choice(
        (
            "null",
            "true",
            "false",
            "[]",
            "{}",
            '""',
            "[[]]",
            '["a"]',
            "[1]",
            '{"a":1}',
            '{"type":"purchase"}',
            "",
            "'x'",
        )
    )


def _pairs(document: dict[str, Any]) -> list[list[str]]:
    return [[json.dumps(name), json.dumps(value, ensure_ascii=False)] for name, value in document.items()]


def document(good: dict[str, Any], names: tuple[str, ...], rng: Random) -> bytes:
    """The JSON of an object of which some fields are hostile, twice there, or missing.

    Args:
        names: of fields that the reader knows.
    """
    if (dice := rng.random()) < 0.15:
        return damaged(json.dumps(good).encode(), rng)
    pairs = _pairs(good)
    for _ in range(rng.choice((0, 1, 1, 1, 2, 4))):
        kind, at = rng.randrange(8), rng.randrange(len(pairs) + 1)
        if kind < 3 and at < len(pairs):
            pairs[at][1] = _value(rng)
        elif kind < 5:
            pairs.insert(at, [json.dumps(rng.choice(names)), _value(rng)])
        elif kind == 5:
            pairs.insert(at, [json.dumps(word(rng)), _value(rng)])
        elif kind == 6 and at < len(pairs):
            del pairs[at]
        elif pairs:
            name, value = rng.choice(pairs)
            pairs.insert(at, [rng.choice((name, name.upper())), rng.choice((value, _value(rng)))])
    comma, colon = rng.choice(((",", ":"), (",", ":"), (", ", ": "), (",\n", " : ")))
    body = raw_of("{" + comma.join(f"{name}{colon}{value}" for name, value in pairs) + "}")
    if dice < 0.2:
        return damaged(body, rng)
    if dice < 0.25:
        body = rng.choice((b"\xef\xbb\xbf", b" ", b"\n")) + body + rng.choice((b"", b" ", b"\n", b"x", b"\0"))
    if dice < 0.27:
        return body.decode("utf-8", "replace").encode(rng.choice(("utf-16", "utf-16-le", "utf-32")))
    return body


def packed(body: bytes, rng: Random) -> bytes:
    """Gzip, perhaps cut off or damaged."""
    whole = gzip.compress(body, 1, mtime=0)
    dice = rng.random()
    if dice < 0.4:
        return whole
    return whole[: rng.randrange(len(whole))] if dice < 0.7 else damaged(whole, rng)


def query(good: list[tuple[str, str]], names: tuple[str, ...], rng: Random, separator: str = "&") -> bytes:
    """A query of which some parameters are hostile, twice there, or missing.

    Args:
        good: its parameters, not encoded.
    """
    pairs = list(good)
    for _ in range(rng.choice((0, 1, 1, 2, 3, 6, 40))):
        at, kind = rng.randrange(len(pairs) + 1), rng.randrange(5)
        if kind == 0 and at < len(pairs):
            del pairs[at]
        elif kind < 3 and at < len(pairs):
            pairs[at] = pairs[at][0], word(rng)
        else:
            pairs.insert(at, (rng.choice(names) if rng.random() < 0.9 else word(rng), word(rng)))
    body = b""
    for name, value in pairs:
        encode = rng.choice((_as_it_is, _quoted, _quoted, _plus, _twice))
        equals = "=" if rng.random() < 0.97 else rng.choice(("", "=="))
        body += (b"" if not body else separator.encode()) + raw_of(f"{name}{equals}") + encode(value)
    return damaged(body, rng) if rng.random() < 0.1 else body


def _as_it_is(value: str) -> bytes:
    return raw_of(value)


def _quoted(value: str) -> bytes:
    return quote(raw_of(value), safe="").encode()


def _plus(value: str) -> bytes:
    return quote_plus(raw_of(value)).encode()


def _twice(value: str) -> bytes:
    return quote(quote(raw_of(value))).encode()
