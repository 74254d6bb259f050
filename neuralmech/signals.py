"""The signals that ask a run to stop."""

from __future__ import annotations

import signal

# Ctrl-C; a polite end; the terminal is gone; what batch systems send before they end a job; the CPU time is used up.
_NAMES = ("SIGINT", "SIGTERM", "SIGHUP", "SIGUSR1", "SIGUSR2", "SIGXCPU")
SIGNALS = tuple(getattr(signal, name) for name in _NAMES if hasattr(signal, name))
