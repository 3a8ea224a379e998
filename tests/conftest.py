"""For all tests."""

from __future__ import annotations

import signal

# Who starts the tests in the background has them ignore Ctrl-C, and what they start would inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)
