"""Takes the documents' pictures of the live page again: `python tests/support/page_pictures.py PORT TOKEN
[PLACEMENT]`.

PORT is of an exporter, best of a demo that has run for some minutes; TOKEN is a reader's, as its link has it.
PLACEMENT is opened (by default the first row). The tag builder's picture needs AUDIOPIXEL_COLLECT_URL and
AUDIOPIXEL_COLLECT_SIGNING_KEYS at the exporter.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

from browser_support import Browser, chromium

DOCS = Path(__file__).parents[2] / "docs"
PICTURES = DOCS / "pictures"
ROWS = "document.querySelectorAll('#rows tr').length > 3"
CURVE = f"{ROWS} && document.querySelector('#p-course-chart canvas')"
CALM_S = 2.0
ROW = "#rows tr:nth-child(2)"
MARKS = [
    ["1", "#money", "left", -17],
    ["2", "#verdict", "left", -20],
    ["3", "#pipeline-open", "left", -20],
    ["4", "#tabs a:nth-child(2)", "right", -8],
    ["5", "#filter", "right", -24],
    ["6", f"{ROW} .c-state", "right", -40],
    ["7", f"{ROW} .c-stake", "left", 8],
    ["8", "#p-state", "right", 8],
    ["9", "#help-open", "right", -8],
]
"""The numbers of docs/reading-the-page.md: what each stands beside, at which edge, and how far from it in px.
"""
DRAW = """marks => { for (const [number, where, edge, shift] of marks) {
    const box = document.querySelector(where).getBoundingClientRect(), mark = document.createElement('div');
    mark.textContent = number; Object.assign(mark.style, {position: 'fixed', left: `${box[edge] + shift}px`,
    width: '18px', height: '18px',
        top: `${box.top + box.height / 2 - 9}px`, borderRadius: '50%', background: '#ffd24a', color: '#111',
        font: '700 12px/18px sans-serif', textAlign: 'center', zIndex: 99});
    document.body.append(mark); } }"""
TAG = {"dialect": "triton", "placement": "breakfast-uk", "campaign": "spring"}


def take(browser: Browser, url: str, name: str, size: tuple[int, int], dark: bool, ready: str) -> None:
    """Open a view, wait until it is ready and calm, and save its picture."""
    browser.dark(dark)
    browser.resize(*size)
    browser.open("about:blank")
    browser.open(url)
    browser.until(f"document.querySelector('#tabs a') && {ready}")
    time.sleep(CALM_S)
    browser.js("document.activeElement.blur()")
    if name == "page-annotated":
        browser.js(f"({DRAW})({json.dumps(MARKS)})")
    if name == "tag-builder":
        for field, value in TAG.items():
            browser.js(f"document.querySelector('#tag-form [name={field}]').value = {json.dumps(value)}")
        browser.js("document.querySelector('#tag-form').requestSubmit()")
        browser.until("document.querySelector('#tag-made textarea')")
    folder = PICTURES if name.startswith("page-") and name != "page-annotated" else DOCS
    (folder / f"{name}.png").write_bytes(browser.screenshot())


def main(port: str, token: str, placement: str = "") -> None:
    url = f"http://127.0.0.1:{port}/"
    with chromium() as browser:
        browser.open(f"{url}login#token={token}")
        browser.until("document.querySelector('#rows td.c-id a')")
        placement = placement or browser.js("document.querySelector('#rows td.c-id a').textContent")
        opened = f"{url}#open={placement}"
        take(browser, opened, "page", (1280, 800), True, CURVE)
        take(browser, opened, "page-annotated", (1280, 800), True, CURVE)
        take(browser, f"{url}#group=campaign_id", "page-1440", (1440, 900), False, ROWS)
        take(browser, url, "page-1024", (1024, 768), True, ROWS)
        take(browser, url, "page-390", (390, 844), False, ROWS)
        take(browser, opened, "page-390-open", (390, 844), True, CURVE)
        calls = "document.querySelectorAll('#live-body tbody tr').length > 3"
        take(browser, f"{url}#view=live", "page-live", (1440, 900), False, calls)
        choices = "document.querySelectorAll('#tag-dialect option').length"
        take(browser, f"{url}#view=tag", "tag-builder", (1200, 900), False, choices)


if __name__ == "__main__":
    main(*sys.argv[1:])
