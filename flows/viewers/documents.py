"""The documents of this version as pages of the exporter, by reader, with a search.

`/docs/runbook.md` is docs/runbook.md as HTML, its headings with GitHub's anchors. `/docs/` lists all
documents by reader. `static/search.js` searches `/docs/search.json`. Pictures and the JSON schema are sent as
files. Alerts and the live page link to these pages: whoever reads an alert or the page can reach the
exporter.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Final

from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

if TYPE_CHECKING:
    from markdown_it.token import Token

_CHECKOUT: Final = Path(__file__).parents[2] / "docs"
FOLDER: Final = _CHECKOUT if _CHECKOUT.is_dir() else Path(sys.prefix) / "share/audiopixel/docs"
"""The folder of documents: next to the source in a checkout, else where the wheel has put it."""
READERS: Final[Mapping[str, tuple[str, ...]]] = {
    "Trade": ("reading-the-page", "meaning", "plans"),
    "Bid": ("bidders", "contracts", "api"),
    "Send pixels": ("first-pixel", "pixels", "collector", "sources"),
    "Operate": (
        "production",
        "operations",
        "runbook",
        "kubernetes",
        "scale",
        "exports",
        "archive",
        "privacy",
    ),
    "Contribute": ("architecture", "proof", "performance", "decisions", "open"),
}
"""Documents by reader, in the order of reading. An unlisted document is listed for the last reader."""
_TYPES: Final = {
    ".png": "image/png",
    ".svg": "image/svg+xml",
    ".json": "application/json",
    ".csv": "text/csv; charset=utf-8",
}
_HEADERS: Final = {
    "content-security-policy": "default-src 'none'; script-src 'self'; connect-src 'self'; style-src 'self'; "
    "img-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
    "cache-control": "no-cache",
}
_MAX_SENTENCE_LENGTH: Final = 200
"""The greatest length of a first sentence in the search."""


def routes(folder: Path = FOLDER) -> list[Route]:
    """The routes. `/docs/` lists the documents, and `/docs/NAME` is a file of `folder`, or 404."""
    # The names are read once, at the start: a caller's path never touches the disk.
    paths = (path for path in sorted(folder.rglob("*")) if path.is_file())
    files = {path.relative_to(folder).as_posix(): path for path in paths}
    shelves = _shelves(
        [name.removesuffix(".md") for name in files if name.endswith(".md") and "/" not in name]
    )
    names = frozenset(f"{stem}.md" for stems in shelves.values() for stem in stems)

    def document(request: Request) -> Response:
        name = request.path_params["name"]
        path = files.get(name)
        if path is None:
            return PlainTextResponse("There is no such document.\n", 404, _HEADERS)
        if name in names:
            return _answer(_page(path, folder))
        media_type = _TYPES.get(path.suffix, "text/plain; charset=utf-8")
        return Response(path.read_bytes(), headers=_HEADERS, media_type=media_type)

    @cache
    def _page(path: Path, folder: Path) -> str:
        return _framed(path.stem.replace("-", " "), to_html(path.read_text()), shelves, path.stem)

    @cache
    def _sections() -> list[tuple[str, ...]]:
        stems = [stem for shelf in shelves.values() for stem in shelf]
        return [section for stem in stems for section in sections(stem, files[f"{stem}.md"].read_text())]

    def all_documents(_: Request) -> Response:
        if not names:
            return PlainTextResponse("This installation has no documents.\n", 404, _HEADERS)
        first = {
            address.removesuffix(".md"): section
            for address, *section in reversed(_sections())
            if "#" not in address
        }
        return _answer(_framed("documents", _listed(shelves, first), shelves, ""))

    def search(_: Request) -> Response:
        return Response(
            json.dumps(_sections(), ensure_ascii=False), headers=_HEADERS, media_type=_TYPES[".json"]
        )

    return [
        Route("/docs/", all_documents),
        Route("/docs/search.json", search),
        Route("/docs/{name:path}", document),
    ]


def _answer(html: str) -> Response:
    return Response(html, headers=_HEADERS, media_type="text/html")


def _shelves(stems: Sequence[str]) -> dict[str, list[str]]:
    """The documents that exist, by reader."""
    listed = {stem for reader_stems in READERS.values() for stem in reader_stems}
    shelves = {reader: [stem for stem in wanted if stem in stems] for reader, wanted in READERS.items()}
    shelves[next(reversed(shelves))] += [stem for stem in stems if stem not in listed]
    return shelves


def anchor(heading: str) -> str:
    """The anchor that GitHub gives a heading: `One process` is `one-process`."""
    return re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-")


def to_html(text: str) -> str:
    """A document's Markdown as HTML."""
    # Imported at the first use: few requests need it.
    from markdown_it import MarkdownIt

    markdown = MarkdownIt("commonmark").enable("table")
    tokens = markdown.parse(text)
    for place, token in enumerate(tokens):
        if token.type == "heading_open":
            token.attrSet("id", anchor(_words(tokens[place + 1].children or ())))
        for child in token.children or ():
            # Files outside docs/ are not served.
            if child.type == "link_open" and str(child.attrGet("href")).startswith("../"):
                child.tag, child.attrs = "span", {}
            elif child.type == "link_close" and _opened(token.children or [], child).tag == "span":
                child.tag = "span"
    html = str(markdown.renderer.render(tokens, markdown.options, {}))
    # A table wider than a screen can be scrolled, by keys too.
    scrolled = '<div class="wide" tabindex="0" role="region" aria-label="Table"><table>'
    html = html.replace("<table>", scrolled).replace("</table>", "</table></div>")
    return html.replace("<pre>", '<pre tabindex="0" role="region" aria-label="Example">')


def _opened(children: Sequence[Token], closing: Token) -> Token:
    """The opening token of the link that `closing` ends: links are never nested."""
    before = children[: children.index(closing)]
    return next(token for token in reversed(before) if token.type == "link_open")


def _words(children: Sequence[Token], broken: str = "") -> str:
    """The text of a paragraph, with `broken` in place of each line's end."""
    return "".join(broken if child.type == "softbreak" else child.content for child in children)


def sections(stem: str, text: str) -> Iterator[tuple[str, str, str, str]]:
    """Each section of a document, for the search.

    Yields:
        (address below `/docs/`, heading, first sentence, its code words) of each heading of three levels. The
        address of a document's title has no anchor.
    """
    from markdown_it import MarkdownIt

    address = heading = sentence = ""
    codes: dict[str, None] = {}
    tokens = MarkdownIt("commonmark").enable("table").parse(text)
    for place, token in enumerate(tokens):
        if token.type == "heading_open" and token.tag in ("h1", "h2", "h3"):
            if address:
                yield address, heading, sentence, " ".join(codes)
            heading, sentence, codes = _words(tokens[place + 1].children or ()), "", {}
            address = f"{stem}.md" if token.tag == "h1" else f"{stem}.md#{anchor(heading)}"
        elif token.type == "inline" and tokens[place - 1].type != "heading_open":
            codes |= dict.fromkeys(
                child.content for child in token.children or () if child.type == "code_inline"
            )
            if not sentence and tokens[place - 1].type == "paragraph_open":
                sentence = _first_sentence(_words(token.children or (), " "))
    if address:
        yield address, heading, sentence, " ".join(codes)


def _first_sentence(text: str) -> str:
    """The first sentence of more than two words, unlike a bold `Meaning.` in front; cut at a word's end."""
    whole = re.split(r"(?<=[.!?])\s", text)
    sentence = next((part for part in whole if len(part.split()) > 2), text)
    return (
        sentence
        if len(sentence) <= _MAX_SENTENCE_LENGTH
        else sentence[:_MAX_SENTENCE_LENGTH].rpartition(" ")[0] + " …"
    )


def _listed(shelves: Mapping[str, Sequence[str]], first: Mapping[str, Sequence[str]]) -> str:
    """The list of all documents: by reader, each with its title and first sentence."""
    html = ["<h1>Documents</h1>"]
    for reader, stems in shelves.items():
        html.append(f'<h2 id="{anchor(reader)}">{escape(reader)}</h2><ul>')
        for stem in stems:
            title, sentence, _ = first.get(stem, (stem, "", ""))
            html.append(f'<li><a href="/docs/{stem}.md">{escape(title)}</a><br>{escape(sentence)}</li>')
        html.append("</ul>")
    return "\n".join(html)


def _framed(title: str, html: str, shelves: Mapping[str, Sequence[str]], shown: str) -> str:
    """A whole page: `html` below the search, and the list of documents by reader, with `shown` as the present
    one.
    """
    links = "".join(
        f'<p id="reader-{number}">{escape(reader)}</p><ul aria-labelledby="reader-{number}">'
        + "".join(
            f'<li><a href="/docs/{stem}.md"{" aria-current=page" if stem == shown else ""}>'
            f"{stem.replace('-', ' ')}</a></li>\n"
            for stem in stems
        )
        + "</ul>"
        for number, (reader, stems) in enumerate(shelves.items())
    )
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>{escape(title)} · audiopixel</title>
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="dark light">
<link rel="icon" href="/page/icon.svg" type="image/svg+xml"><link rel="stylesheet" href="/page/page.css">
<link rel="stylesheet" href="/page/document.css"><script type="module" src="/page/search.js"></script></head>
<body class="document"><header><a href="/">Live page</a> <a href="/docs/">All documents</a>
<search hidden><input type="search" aria-label="Search the documents" placeholder="Search" autocomplete="off">
<span role="status"></span><ul></ul></search></header>
<nav aria-label="Documents">{links}</nav><main>
{html}</main></body></html>
"""
