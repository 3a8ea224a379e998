"""A real headless Chromium, driven through its DevTools pipe: NUL-ended JSON, no port, no further package."""

from __future__ import annotations

import base64
import json
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
MISSING = "needs Chromium: apt-get install --no-install-recommends chromium"
ARGUMENTS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
    "--hide-scrollbars",
    "--remote-debugging-pipe",
)
CODES = {
    "Enter": (13, "\r"),
    "Tab": (9, ""),
    "Escape": (27, ""),
    "ArrowLeft": (37, ""),
    "ArrowRight": (39, ""),
}


class Left(AssertionError):
    """The page was left while it was asked."""


class Browser:
    """A tab."""

    def __init__(self, commands: int, answers: int) -> None:
        self._commands, self._answers = commands, answers
        self._number, self._rest = 0, b""
        self._session: str | None = None
        self.errors: list[str] = []
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log"):
            self.call(f"{domain}.enable")
        self.resize(1280, 800)

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        self._number += 1
        message: dict[str, Any] = {"id": self._number, "method": method, "params": parameters}
        if self._session is not None:
            message["sessionId"] = self._session
        os.write(self._commands, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._read()
            if answer.get("id") == self._number:
                if "error" in answer:
                    raise (Left if "navigated" in answer["error"]["message"] else AssertionError)(answer)
                return answer["result"]  # type: ignore[no-any-return]
            self._notice(answer)

    def _read(self) -> dict[str, Any]:
        while b"\0" not in self._rest:
            part = os.read(self._answers, 1 << 20)
            assert part, "Chromium has ended"
            self._rest += part
        one, _, self._rest = self._rest.partition(b"\0")
        return json.loads(one)  # type: ignore[no-any-return]

    def _notice(self, event: dict[str, Any]) -> None:
        parameters = event.get("params", {})
        if event.get("method") == "Runtime.exceptionThrown":
            self.errors.append(json.dumps(parameters["exceptionDetails"])[:600])
        if event.get("method") == "Log.entryAdded" and parameters["entry"]["level"] == "error":
            self.errors.append(parameters["entry"]["text"])

    def resize(self, width: int, height: int) -> None:
        # Not the window: its size counts its frame in.
        size = {"width": width, "height": height}
        self.call("Emulation.setDeviceMetricsOverride", **size, deviceScaleFactor=1, mobile=False)

    def open(self, url: str) -> None:
        self.call("Page.navigate", url=url)

    def js(self, expression: str) -> Any:
        done = self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in done, done
        return done["result"].get("value")

    def thread_ms(self, expression: str) -> float:
        """Processor time of the page's thread while it evaluates, in ms."""

        def spent_s() -> float:
            metrics = self.call("Performance.getMetrics")["metrics"]
            return next(float(one["value"]) for one in metrics if one["name"] == "TaskDuration")

        self.call("Performance.enable", timeDomain="threadTicks")
        before_s = spent_s()
        self.js(expression)
        return 1000 * (spent_s() - before_s)

    def until(self, expression: str, seconds: float = 20) -> None:
        deadline = time.monotonic() + seconds
        while not self._so(expression):
            assert time.monotonic() < deadline, f"did not come true in time: {expression}; {self.errors}"
            time.sleep(0.05)

    def _so(self, expression: str) -> bool:
        with suppress(Left):  # the next page is asked
            return bool(self.js(f"Boolean({expression})"))
        return False

    def press(self, key: str, modifiers: int = 0) -> None:
        """Press a key; of `Enter` and `Tab` also what they do to buttons and focus. Shift is 8."""
        typed: dict[str, Any] = {"text": key} if len(key) == 1 else {}
        if key in CODES:
            code, text = CODES[key]
            typed = {"windowsVirtualKeyCode": code, "code": key} | ({"text": text} if text else {})
        self.call("Input.dispatchKeyEvent", type="keyDown", key=key, modifiers=modifiers, **typed)
        self.call("Input.dispatchKeyEvent", type="keyUp", key=key, modifiers=modifiers)

    def click(self, selector: str) -> None:
        """Click into the middle of an element, as a mouse does."""
        box = f"document.querySelector({json.dumps(selector)}).getBoundingClientRect()"
        x, y = self.js(f"(box => [box.x + box.width / 2, box.y + box.height / 2])({box})")
        for what in ("mousePressed", "mouseReleased"):
            self.call("Input.dispatchMouseEvent", type=what, x=x, y=y, button="left", clickCount=1)

    def scripts(self, allowed: bool) -> None:
        """Allow scripts or none; without them `js` never answers."""
        self.call("Emulation.setScriptExecutionDisabled", value=not allowed)

    def html(self) -> str:
        """The document as it is, also without scripts; empty between two documents."""
        root = self.call("DOM.getDocument")["root"]["nodeId"]
        try:
            return str(self.call("DOM.getOuterHTML", nodeId=root)["outerHTML"])
        except AssertionError as gone:
            if "Could not find node" in str(gone):
                return ""
            raise

    def downloads(self, folder: Path) -> None:
        """Let files be saved, into a folder."""
        session, self._session = self._session, None
        self.call("Browser.setDownloadBehavior", behavior="allow", downloadPath=str(folder))
        self._session = session

    def dark(self, dark: bool, forced: bool = False) -> None:
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        colours = {"name": "forced-colors", "value": "active" if forced else "none"}
        self.call("Emulation.setEmulatedMedia", features=[scheme, colours])

    def screenshot(self) -> bytes:
        return base64.b64decode(self.call("Page.captureScreenshot", format="png")["data"])


@contextmanager
def chromium() -> Iterator[Browser]:
    """A browser with a profile of its own, ended and forgotten afterwards."""
    assert CHROMIUM is not None
    command_read, command_write = os.pipe()
    answer_read, answer_write = os.pipe()

    def pipes() -> None:
        # Chromium reads from 3 and writes to 4; via high numbers, as one of ours may be 3 or 4 itself.
        os.dup2(command_read, 103)
        os.dup2(answer_write, 104)
        os.dup2(103, 3)
        os.dup2(104, 4)

    with tempfile.TemporaryDirectory(prefix="chromium-", ignore_cleanup_errors=True) as profile:
        process = subprocess.Popen(
            [CHROMIUM, *ARGUMENTS, f"--user-data-dir={profile}", "about:blank"],
            preexec_fn=pipes,
            close_fds=False,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(command_read)
        os.close(answer_write)
        try:
            yield Browser(command_write, answer_read)
        finally:
            os.close(command_write)
            os.close(answer_read)
            process.terminate()
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
