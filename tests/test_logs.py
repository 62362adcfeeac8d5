"""What the processes log: what an operator needs, and nothing of what a caller sent."""

import json
import logging
import sys
from typing import Any

import httpx
from conftest import PHOTO, Running, eventually, wait_for_end

from jobs.logs import JsonLines

TELLTALES = ("jane-doe-portrait", "Jane Doe", "jane@example.org", "4711471147114711", "%40example.org")
FORM = {"steps": "1", "faces": "aligned", "seed": "4711471147114711", "reference": "Jane Doe"}


def test_no_log_tells_what_a_caller_sent(served: Running, api: httpx.Client) -> None:
    """A job, a broken upload, wrong fields, paths, queries: no name, address or seed is told."""
    files = {"image": ("jane-doe-portrait.png", PHOTO.read_bytes(), "image/png")}
    headers = {"X-Request-ID": "a-run-of-this-test", "User-Agent": "Jane Doe", "X-API-Key": "Jane Doe"}
    job = api.post("/anonymize", files=files, data=FORM, headers=headers).json()
    wait_for_end(api, job)
    api.get(job["links"]["result"], params={"for": "jane@example.org"})
    broken = {"image": ("jane-doe-portrait.png", b"Jane Doe", "image/png")}
    assert api.post("/anonymize", files=broken, data=FORM).status_code == 415
    assert api.post("/anonymize", files=files, data={**FORM, "d": "Jane Doe"}).status_code == 422
    assert api.get("/jobs/jane@example.org").status_code == 404
    assert api.get("/jane@example.org").status_code == 404
    api.delete(job["links"]["self"])

    def lines() -> list[dict[str, Any]]:
        return [json.loads(line) for line in list(served.lines) if line.startswith("{")]

    def erased() -> bool:
        return any(line.get("status") == 204 and line.get("job") == job["id"] for line in lines())

    assert eventually(erased)
    (submitted,) = [line for line in lines() if line.get("request_id") == "a-run-of-this-test"][:1]
    assert (submitted["status"], submitted["job"], submitted["route"]) == (202, job["id"], "/anonymize")
    assert submitted["received_bytes"] > len(PHOTO.read_bytes())
    log = "".join(served.lines)
    assert [told for told in TELLTALES if told in log] == []


def test_a_line_is_one_object() -> None:
    """Line breaks do not break it; of an error the class and place are told, and what it came from."""
    logger = logging.getLogger("test")
    try:
        try:
            int("Jane Doe")
        except ValueError as error:
            raise RuntimeError("Jane Doe") from error
    except RuntimeError:
        record = logger.makeRecord(
            "test",
            logging.ERROR,
            __file__,
            1,
            "two\nlines of %s",
            ("text",),
            sys.exc_info(),
            extra={"job": "1"},
        )
    line = JsonLines("worker").format(record)
    assert "\n" not in line
    assert "Jane Doe" not in line
    told = json.loads(line)
    assert (told["message"], told["process"], told["job"]) == ("two\nlines of text", "worker", "1")
    assert [error["type"] for error in told["exception"]] == ["builtins.RuntimeError", "builtins.ValueError"]
    assert "test_logs.py" in told["exception"][0]["at"][0]
