"""What is over: the picture first, then the job."""

import httpx
from conftest import PHOTO, eventually, serve_alone
from test_waiting import finish, start


def test_the_picture_expires_before_the_job() -> None:
    """200, then 410 while the job still says how it ended, then 404 for both."""
    with (
        serve_alone(result_seconds=1, record_seconds=4) as running,
        httpx.Client(base_url=running.url, timeout=10) as api,
    ):
        job = api.post("/anonymize", files={"image": PHOTO.read_bytes()}).json()
        finish(running.store, start(running.store, job["id"]))
        ended = api.get(job["links"]["self"]).json()
        assert ended["finished_at"] < ended["result"]["expires_at"] < ended["expires_at"]
        assert api.get(job["links"]["result"]).content == b"picture"
        assert eventually(lambda: api.get(job["links"]["result"]).status_code != 200, 3)
        gone = api.get(job["links"]["result"])
        assert (gone.status_code, gone.json()["code"]) == (410, "result_expired")
        assert api.get(job["links"]["self"]).json() == ended
        assert eventually(lambda: api.get(job["links"]["self"]).status_code == 404, 6)
        assert api.get(job["links"]["result"]).json()["code"] == "job_not_found"
        assert list(running.redis.scan_iter("face-anon:*")) == [b"face-anon:durations"]


def test_a_job_that_nobody_does_expires_with_its_upload() -> None:
    """After `waiting_seconds` nothing of it is left, and it is a 404."""
    with (
        serve_alone(waiting_seconds=1) as running,
        httpx.Client(base_url=running.url, timeout=10) as api,
    ):
        job = api.post("/anonymize", files={"image": PHOTO.read_bytes()}).json()
        assert list(running.redis.scan_iter("face-anon:*"))
        assert eventually(lambda: api.get(job["links"]["self"]).status_code == 404, 5)
        assert not list(running.redis.scan_iter("face-anon:*"))
