"""Signing in, as Chromium does it: the form, the page of one reader, and the end of the session."""

from __future__ import annotations

import time
from typing import Any

import pytest
from access_support import SECRET, access, put_two_advertisers
from browser_support import CHROMIUM, MISSING, chromium
from page_support import exporter

pytestmark = [pytest.mark.debian, pytest.mark.skipif(CHROMIUM is None, reason=MISSING)]

ROWS = "[...document.querySelectorAll('#rows tr:not(.pad)')].map((row) => row.textContent).join()"
FORM = "document.querySelector('input[type=password]')"


def test_a_reader_signs_in_sees_the_own_rows_and_is_led_to_the_form_when_the_session_ends(
    valkey: Any,
) -> None:
    put_two_advertisers(valkey.url, "signin")
    now_s = [time.time()]
    readers = access(clock_s=lambda: now_s[0])
    with exporter(valkey.url, "signin", access=readers) as port, chromium() as browser:
        place = f"http://127.0.0.1:{port}/"
        browser.open(place)
        browser.until(FORM)
        browser.js(f"{FORM}.value = 'mine.wrong'; document.querySelector('form').submit()")
        browser.until("document.querySelector('[role=alert]')")
        browser.js(f"{FORM}.value = 'mine.{SECRET}'; document.querySelector('form').submit()")
        browser.until(f"location.pathname === '/' && {ROWS}.includes('mine-planned')")
        assert "zebra" not in browser.js("document.body.textContent")
        assert browser.js("document.cookie") == "", "no script can read the session"
        now_s[0] += readers.session_s
        browser.until(FORM)
