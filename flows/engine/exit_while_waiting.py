"""End of a member on SIGTERM while Bytewax still waits, in native code, for the other members."""

from __future__ import annotations

import os
import signal
import threading
from typing import Final

_ENDING: Final = (signal.SIGTERM, signal.SIGINT)


class ExitWhileWaiting:
    """Ends the process at once and with 0 on SIGTERM and SIGINT, until `over` is called: no work has begun,
    so none is to be drained. Create it in the main thread.
    """

    def __init__(self) -> None:
        self._over = False
        reading, writing = os.pipe()
        os.set_blocking(writing, False)
        signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
        threading.Thread(target=self._watch, args=(reading,), name="waiting", daemon=True).start()

    def over(self) -> None:
        """Stop: all members have met, and from now on the flow's own handlers count."""
        self._over = True

    def _watch(self, reading: int) -> None:
        while not self._over:
            if os.read(reading, 1)[0] in _ENDING and not self._over:
                os._exit(0)
