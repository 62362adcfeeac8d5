"""Ties the life of a child process to that of the process which started it (`cli.serve`), also where that
one is killed with -9: the parent holds the other end of the child's standard input.
"""

import os
import signal
import sys
import threading


def stop_with_parent() -> None:
    """Send this process SIGTERM when its standard input closes."""
    threading.Thread(target=_wait_for_end_of_input, name="parent", daemon=True).start()


def _wait_for_end_of_input() -> None:
    while os.read(sys.stdin.fileno(), 4096):
        pass
    os.kill(os.getpid(), signal.SIGTERM)
