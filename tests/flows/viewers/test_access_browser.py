"""Signing in, as Chromium does it: the form, the page of one reader, and the end of the session."""

from __future__ import annotations

import time
from typing import Any

import pytest
from access_support import SECRET, access, put_two_advertisers, token
from browser_support import CHROMIUM, MISSING, chromium
from page_support import exporter

from flows.viewers.access import Access

pytestmark = [pytest.mark.debian, pytest.mark.skipif(CHROMIUM is None, reason=MISSING)]

ROWS = "[...document.querySelectorAll('#rows tr:not(.pad)')].map((row) => row.textContent).join()"
FORM = "document.querySelector('input[type=password]')"


def test_a_reader_signs_in_and_returns_to_the_form_afterwards(
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


def test_a_shared_link_outlives_signing_in_and_the_end_of_a_session(valkey: Any) -> None:
    put_two_advertisers(valkey.url, "shared")
    now_s = [time.time()]
    readers = access(clock_s=lambda: now_s[0])
    with exporter(valkey.url, "shared", access=readers) as port, chromium() as browser:
        place = f"http://127.0.0.1:{port}/"
        shared, ready = "#q=mine-planned+c-1", "document.querySelector('form')?.action.includes('/login#')"
        signed_in = "location.pathname === '/' && document.querySelector('#filter')"
        browser.open(f"{place}{shared}")
        browser.until(ready)
        browser.js(f"{FORM}.value = 'mine.wrong'; document.querySelector('form').requestSubmit()")
        browser.until(f"document.querySelector('[role=alert]') && {ready}")
        browser.js(f"{FORM}.value = 'mine.{SECRET}'; document.querySelector('form').requestSubmit()")
        browser.until(f"{signed_in}?.value === 'mine-planned c-1'")
        assert browser.js("location.href") == f"{place}{shared}"
        now_s[0] += readers.session_s
        browser.until(ready)
        browser.js(f"{FORM}.value = 'mine.{SECRET}'; document.querySelector('form').requestSubmit()")
        browser.until(f"{signed_in}?.value === 'mine-planned c-1'")
        now_s[0] += readers.session_s
        browser.open("about:blank")
        browser.open(f"{place}login#//elsewhere.example/")
        browser.until(ready)
        browser.js(f"{FORM}.value = 'mine.{SECRET}'; document.querySelector('form').requestSubmit()")
        browser.until(signed_in)
        assert browser.js("location.origin") == place.rstrip("/")


def test_only_the_created_tokens_link_signs_in_at_once(
    valkey: Any,
) -> None:
    put_two_advertisers(valkey.url, "link")
    readers = Access()
    with exporter(valkey.url, "link", access=readers, anonymous=True) as port, chromium() as browser:
        login = f"http://127.0.0.1:{port}/login"
        browser.open(f"{login}#token=local.stale")
        browser.until("document.querySelector('[role=alert]')")
        assert browser.js("location.hash") == ""
        browser.open("about:blank")
        browser.open(f"{login}#token={readers.created_token}")
        browser.until(f"location.pathname === '/' && {ROWS}.includes('mine-planned')")
        assert browser.js("location.href") == f"http://127.0.0.1:{port}/"
    readers = Access({"desk": token(read_all=True)})
    with exporter(valkey.url, "link", access=readers) as port, chromium() as browser:
        browser.open(f"http://127.0.0.1:{port}/login#token=desk.{SECRET}")
        browser.until(f"{FORM} && {FORM}.value")
        time.sleep(1)
        assert browser.js("location.href") == f"http://127.0.0.1:{port}/login"
        browser.js("document.querySelector('form').requestSubmit()")
        browser.until(f"location.pathname === '/' && {ROWS}.includes('mine-planned')")
