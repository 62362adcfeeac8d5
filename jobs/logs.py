"""What the processes log: JSON, one object a line, on standard error. What belongs to an event beside its
sentence goes into `extra`: a job's id, a caller's name, sizes, times, codes; never what a caller sent.
"""

import json
import logging
import os
import sys
import traceback
from datetime import UTC, datetime

_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName", "color_message"}


class JsonLines(logging.Formatter):
    """Formats a record as one JSON object.

    Of an exception only its class and the places are told, not its sentence: that may quote an input.
    """

    def __init__(self, process: str) -> None:
        super().__init__()
        self._process = process
        self._json = json.JSONEncoder(default=str)

    def format(self, record: logging.LogRecord) -> str:
        """Return the line."""
        line: dict[str, object] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "process": self._process,
            "pid": os.getpid(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        line |= {name: value for name, value in vars(record).items() if name not in _STANDARD}
        if record.exc_info and record.exc_info[1]:
            line["exception"] = _told(record.exc_info[1])
        return self._json.encode(line)


def log_json_lines(process: str, level: str = "INFO") -> None:
    """Let every logger of this process, the libraries' included, write JSON lines to standard error."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonLines(process))
    logging.basicConfig(level=level, handlers=[handler], force=True)


def _told(error: BaseException) -> list[dict[str, object]]:
    chain: list[dict[str, object]] = []
    current: BaseException | None = error
    while current is not None:
        frames = traceback.extract_tb(current.__traceback__)[-12:]
        places = [f"{frame.filename}:{frame.lineno} {frame.name}" for frame in frames]
        chain.append({"type": f"{type(current).__module__}.{type(current).__qualname__}", "at": places})
        current = current.__cause__ or current.__context__
    return chain
