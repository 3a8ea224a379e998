"""Memory of a process's threads."""

from __future__ import annotations

import platform
import subprocess
import sys
from typing import Final

import pytest

_THREADS: Final = """
import ctypes, threading, time
from flows.state.allocator import keep_memory, share_one_arena

share_one_arena()
keep_memory()
together = threading.Barrier(4)

def allocate():
    together.wait()
    kept = [bytearray(50_000) for _ in range(100)]
    together.wait()

threads = [threading.Thread(target=allocate) for _ in range(3)]
for thread in threads:
    thread.start()
together.wait()
together.wait()
ctypes.CDLL(None).malloc_stats()
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="arenas are the GNU C library's")
def test_all_threads_allocate_from_one_arena() -> None:
    ran = subprocess.run([sys.executable, "-c", _THREADS], capture_output=True, text=True, check=True)
    assert ran.stderr.count("Arena ") == 1
