"""The documents of this version, as pages of the exporter: alerts and the live page link to them, and so they
open where nothing but the exporter can be reached.

`/docs/runbook.md` is docs/runbook.md as HTML, its headings with the anchors that GitHub gives them; pictures
and the JSON schema are sent as they are.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Final

from starlette.requests import Request
from starlette.responses import PlainTextResponse, RedirectResponse, Response
from starlette.routing import Route

if TYPE_CHECKING:
    from markdown_it.token import Token

_CHECKOUT: Final = Path(__file__).parents[2] / "docs"
FOLDER: Final = _CHECKOUT if _CHECKOUT.is_dir() else Path(sys.prefix) / "share/audiopixel/docs"
"""Beside the source in a checkout, else where the wheel has put them."""
FIRST: Final = ("reading-the-page", "runbook", "bidders", "pixels", "plans", "collector", "operations")
"""The documents that people ask for most, in front of the others."""
_TYPES: Final = {
    ".png": "image/png",
    ".svg": "image/svg+xml",
    ".json": "application/json",
    ".csv": "text/csv; charset=utf-8",
}
_HEADERS: Final = {
    "content-security-policy": "default-src 'none'; style-src 'self'; img-src 'self'; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
    "cache-control": "no-cache",
}


def routes(folder: Path = FOLDER) -> list[Route]:
    """`/docs/` leads to the first document; `/docs/NAME` is a file of `folder`, 404 where there is none."""
    # The names once, here: a path of a caller never touches the disk.
    found = (path for path in sorted(folder.rglob("*")) if path.is_file())
    files = {path.relative_to(folder).as_posix(): path for path in found}
    names = sorted((name for name in files if name.endswith(".md") and "/" not in name), key=_place)

    def document(request: Request) -> Response:
        name = request.path_params["name"]
        path = files.get(name)
        if path is None:
            return PlainTextResponse("There is no such document.\n", 404, _HEADERS)
        if name in names:
            return Response(_page(path, tuple(names)), headers=_HEADERS, media_type="text/html")
        media_type = _TYPES.get(path.suffix, "text/plain; charset=utf-8")
        return Response(path.read_bytes(), headers=_HEADERS, media_type=media_type)

    def first(_: Request) -> Response:
        if not names:
            return PlainTextResponse("This installation has no documents.\n", 404, _HEADERS)
        return RedirectResponse(f"/docs/{names[0]}")

    return [Route("/docs/", first), Route("/docs/{name:path}", document)]


def anchor(heading: str) -> str:
    """The anchor that GitHub gives a heading: `One process` is `one-process`."""
    return re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-")


def to_html(text: str) -> str:
    """A document's Markdown as HTML."""
    # Not at the exporter's start: few ask for it.
    from markdown_it import MarkdownIt

    markdown = MarkdownIt("commonmark").enable("table")
    tokens = markdown.parse(text)
    for place, token in enumerate(tokens):
        if token.type == "heading_open":
            token.attrSet("id", anchor(_words(tokens[place + 1].children or ())))
        for child in token.children or ():
            # What lies beside docs/ is not served.
            if child.type == "link_open" and str(child.attrGet("href")).startswith("../"):
                child.tag, child.attrs = "span", {}
            elif child.type == "link_close" and _opened(token.children or [], child).tag == "span":
                child.tag = "span"
    html = str(markdown.renderer.render(tokens, markdown.options, {}))
    # What is wider than a screen is scrolled, by keys too.
    scrolled = '<div class="wide" tabindex="0" role="region" aria-label="Table"><table>'
    html = html.replace("<table>", scrolled).replace("</table>", "</table></div>")
    return html.replace("<pre>", '<pre tabindex="0" role="region" aria-label="Example">')


def _opened(children: Sequence[Token], closing: Token) -> Token:
    """The token that `closing` ends: links hold no links."""
    before = children[: children.index(closing)]
    return next(one for one in reversed(before) if one.type == "link_open")


def _words(children: Sequence[Token]) -> str:
    return "".join(child.content for child in children)


def _place(name: str) -> tuple[int, str]:
    stem = name.removesuffix(".md")
    return (FIRST.index(stem) if stem in FIRST else len(FIRST), stem)


@cache
def _page(path: Path, names: tuple[str, ...]) -> str:
    links = "\n".join(
        f'<a href="/docs/{name}"{" aria-current=page" if name == path.name else ""}>'
        f"{name.removesuffix('.md').replace('-', ' ')}</a>"
        for name in names
    )
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>{path.stem.replace("-", " ")} · audiopixel</title>
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="dark light">
<link rel="icon" href="/page/icon.svg" type="image/svg+xml"><link rel="stylesheet" href="/page/page.css">
<link rel="stylesheet" href="/page/document.css"></head>
<body class="document"><header><nav aria-label="Documents"><a href="/">Live page</a>
{links}</nav></header><main>
{to_html(path.read_text())}</main></body></html>
"""
