"""The flow as several processes on one machine: started together, stopped together, restarted together."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from ipaddress import ip_address
from typing import Final

import structlog

from connectors.ports import free_ports
from flows.errors import CANNOT_BEGIN, AudiopixelError, SettingsError
from flows.settings import PREFIX

LONGEST_PAUSE_S: Final = 30.0
STOP_WITHIN_S: Final = 10.0


_ADDRESS: Final = re.compile(r"(?P<host>\[[^\[\]]+\]|[^:\[\]\s]+):(?P<port>\d{1,5})")


def members(member: int, addresses: str, private: bool = False) -> list[str]:
    """The addresses of a cluster's members. Checks that `member` can and may listen at its address.

    Args:
        addresses: `HOST:PORT` of each, separated by semicolons, in the same order for all.
        private: the operator's statement that only members reach an address that is not loopback.

    Raises:
        SettingsError: an address is wrong; the error names it.
    """
    places = [place.strip() for place in addresses.split(";")]
    matched = [_ADDRESS.fullmatch(place) for place in places]
    for place, match in zip(places, matched, strict=True):
        if match is None or not 0 < int(match["port"]) < 65536:
            raise SettingsError(f"--addresses: takes 'HOST:PORT;HOST:PORT' of all members, not {place!r}")
        if places.count(place) > 1:
            raise SettingsError(f"--addresses: {place} is there twice: every member has its own")
    if not 0 <= member < len(places):
        raise SettingsError(
            f"--member {member}: takes 0 to {len(places) - 1}, the place in --addresses of this machine's own"
        )
    own = matched[member]
    assert own is not None
    try:
        family = socket.AF_INET6 if own["host"].startswith("[") else socket.AF_INET
        with socket.create_server((own["host"].strip("[]"), int(own["port"])), family=family) as listener:
            loopback = ip_address(listener.getsockname()[0]).is_loopback
    except OSError as error:
        reason = (error.strerror or str(error)).partition(" (while")[0]
        raise SettingsError(
            f"--member {member} cannot listen at {places[member]} ({reason}): it takes a free port of this "
            "machine"
        ) from None
    if not loopback and not private:
        raise SettingsError(
            f"--member {member} would listen at {places[member]}: members exchange Python pickles over plain "
            "TCP, so whoever reaches that port runs code as the flow. Listen at a tunnel's address, and set "
            f"{PREFIX}MEMBER_NETWORK=private"
        )
    return places


def end_with_supervisor() -> None:
    """End this member at once when the pipe to its supervisor closes, even after SIGKILL of the supervisor.

    Otherwise the member would hold the recovery store, and the members of the next supervisor could never
    start.
    """

    def wait() -> None:
        os.read(sys.stdin.fileno(), 1)
        os._exit(1)

    threading.Thread(target=wait, daemon=True).start()


def start_member(arguments: Sequence[str]) -> subprocess.Popen[bytes]:
    """Start a supervised `audiopixel run` in a session of its own; its standard input closes when this
    process ends.
    """
    command = [sys.executable, "-m", "flows.cli", "run", "--supervised", *arguments]
    return subprocess.Popen(command, stdin=subprocess.PIPE, start_new_session=True)


class Cluster:
    """Child processes of one flow. If one dies, the engine cannot use the others, so all are restarted.

    Args:
        processes: their number.
        arguments: more of `audiopixel run`'s.
        restarts: the greatest number of restarts after crashes, with growing pauses; None for no limit.
    """

    def __init__(self, processes: int, arguments: Sequence[str] = (), restarts: int | None = None) -> None:
        self._processes = processes
        self._arguments = list(arguments)
        self._restarts = restarts
        self._children: list[subprocess.Popen[bytes]] = []
        self._stopping = False
        self._log = structlog.get_logger("cluster")

    def run(self) -> None:
        """Supervise until a signal or a clean end.

        Raises:
            AudiopixelError: the flow failed too often, or twice in a row for a permanent reason; then with
                the exit code of its process.
        """
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: self._stop())
        failed, before, pause_s = 0, 0, 0.5
        while True:
            started_s = time.monotonic()
            self._start()
            if self._stopping:  # the stop was requested while they were being started
                self._stop()
            code = self._wait()
            if self._stopping or code == 0:
                if code:
                    raise AudiopixelError(f"a process of the flow ended with code {code} while stopping")
                return
            failed += 1
            # after one failure only: a port may have been taken meanwhile
            futile = code in CANNOT_BEGIN and code == before
            before = code
            if futile or (self._restarts is not None and failed > self._restarts):
                failure = AudiopixelError(
                    f"the flow failed {failed} times, last with code {code}: see its messages above"
                )
                failure.exit_code = code if code in CANNOT_BEGIN else 1
                raise failure
            if time.monotonic() - started_s > 60:
                pause_s = 0.5
            self._log.warning("a process of the flow died: all start again", code=code, pause_s=pause_s)
            time.sleep(pause_s)
            if self._stopping:
                return
            pause_s = min(LONGEST_PAUSE_S, 2 * pause_s)

    def _start(self) -> None:
        addresses = ";".join(f"127.0.0.1:{port}" for port in free_ports(self._processes))
        self._children = [
            start_member(["--member", str(member), "--addresses", addresses, *self._arguments])
            for member in range(self._processes)
        ]

    def _wait(self) -> int:
        """The first code that is not 0, once all processes have ended."""
        while all(child.poll() is None for child in self._children):
            time.sleep(0.1)
        deadline_s = time.monotonic() + (STOP_WITHIN_S if self._stopping else 2.0)
        while any(child.poll() is None for child in self._children) and time.monotonic() < deadline_s:
            if self._stopping and self._unbegun():
                break
            time.sleep(0.05)
        unbegun = self._unbegun()
        for child in self._children:
            if child.poll() is None:
                child.kill()
            assert child.stdin is not None
            child.stdin.close()
        codes = [child.wait() for child in self._children]
        return 0 if self._stopping and unbegun else next((code for code in codes if code), 0)

    def _unbegun(self) -> bool:
        """True if SIGTERM itself ended a child, before the child handled it. Then no child has begun, since
        each waits for all, and no work is to be drained.
        """
        return any(child.poll() == -signal.SIGTERM for child in self._children)

    def _stop(self) -> None:
        self._stopping = True
        for child in self._children:
            child.terminate()
