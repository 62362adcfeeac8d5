"""What a caller may take: jobs in the queue, unfinished jobs, requests a second. Each limit is exceeded."""

from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime

import httpx
import pytest
from conftest import eventually, serve_in_process
from pydantic import SecretStr, ValidationError
from test_keys import ALICE, BOB, FILES, FORM, bearer
from test_waiting import finish, start

from jobs.contract import JobRequest, Kind, Limits, Parameters, PictureFormat
from jobs.limits import Places, QueueFullError
from service.settings import Settings

KEYS = SecretStr(f"alice:{ALICE},bob:{BOB}")


def submit(api: httpx.Client, key: str = ALICE) -> httpx.Response:
    """Submit the sample photo with a key."""
    return api.post("/anonymize", files=FILES, data=FORM, headers=bearer(key))


def assert_limited(answer: httpx.Response, code: str) -> None:
    """Check that the answer is a 429 that says when to come back."""
    assert (answer.status_code, answer.json()["code"]) == (429, code)
    assert int(answer.headers["retry-after"]) >= 1


def test_the_queue_has_a_length() -> None:
    """One job more than may wait is a 429, and leaves no byte behind; a place that is freed is taken."""
    with serve_in_process(max_queued_jobs=2) as running:
        first = submit(running.api).json()
        submit(running.api)
        before = set(running.redis.keys())
        assert_limited(submit(running.api), "queue_full")
        assert set(running.redis.keys()) == before
        running.api.post(first["links"]["cancel"])
        assert submit(running.api).status_code == 202


def test_requests_at_the_same_moment_do_not_overfill_the_queue() -> None:
    """Twenty at once at two services that share a queue of five: five are taken."""
    with serve_in_process(max_queued_jobs=5) as running, running.another(max_queued_jobs=5) as other:
        for api in (running.api, other):  # FastAPI builds a route at its first request, in one thread only
            assert api.get("/openapi.json").status_code == 200
            assert api.get("/anonymize").status_code == 405
        with ThreadPoolExecutor(20) as threads:
            answers = list(threads.map(submit, [running.api, other] * 10))
        assert sorted(answer.status_code for answer in answers) == [202] * 5 + [429] * 15
        assert running.store.queued() == 5


def test_a_key_has_so_many_unfinished_jobs() -> None:
    """One more is a 429 for that key only, whichever way its jobs end it may then submit again."""
    with serve_in_process(api_keys=KEYS, jobs_per_key=1) as running:
        api = running.api
        for end in ("cancel", "delete", "finish"):
            job = submit(api).json()
            assert_limited(submit(api), "too_many_jobs")
            if end == "cancel":
                api.post(job["links"]["cancel"], headers=bearer(ALICE))
            elif end == "delete":
                api.delete(job["links"]["self"], headers=bearer(ALICE))
            else:
                request = start(running.store, job["id"])
                assert_limited(submit(api), "too_many_jobs")  # a running one is unfinished
                finish(running.store, request)
        assert submit(api).status_code == 202
        assert submit(api, BOB).status_code == 202
        assert_limited(submit(running.another(api_keys=KEYS, jobs_per_key=1), BOB), "too_many_jobs")


def test_a_job_that_nobody_did_does_not_count() -> None:
    """After it has expired its key may submit again."""
    with serve_in_process(api_keys=KEYS, jobs_per_key=1, waiting_seconds=1) as running:
        submit(running.api)
        assert_limited(submit(running.api), "too_many_jobs")
        assert eventually(lambda: submit(running.api).status_code == 202, 10)


def test_a_repeated_request_needs_no_place() -> None:
    """With an Idempotency-Key the earlier job is given at every limit."""
    with serve_in_process(api_keys=KEYS, jobs_per_key=1, max_queued_jobs=1) as running:
        headers = {**bearer(ALICE), "Idempotency-Key": "once"}
        answers = [running.api.post("/anonymize", files=FILES, data=FORM, headers=headers) for _ in range(3)]
        assert {answer.status_code for answer in answers} == {202}
        assert len({answer.json()["id"] for answer in answers}) == 1


def test_a_place_of_a_submission_that_broke_off_is_given_back() -> None:
    """A reservation counts, and lapses by itself."""
    with serve_in_process() as running:
        request = JobRequest(
            id="1" * 32,
            kind=Kind.SWAP,
            parameters=Parameters(seed=1, steps=1, guidance_scale=1, format=PictureFormat.PNG),
            reference=None,
            created_at=datetime.now(UTC),
            limits=Limits(max_pixels=1, max_faces=1, result_seconds=1, record_seconds=1),
        )
        places = Places(running.redis, running.store.queue.key)
        places.reserve(request, max_queued=1, max_owned=0)
        with pytest.raises(QueueFullError):
            places.reserve(request, max_queued=1, max_owned=0)
        assert 0 < running.redis.ttl("face-anon:reserved") <= 60
        running.redis.zadd("face-anon:reserved", {request.id: 1})  # its time is over
        places.reserve(request, max_queued=1, max_owned=0)


def test_requests_of_a_key_have_a_rate() -> None:
    """A burst is taken, then 429 until time has passed; each key by itself, at all services together."""
    settings = {"api_keys": KEYS, "requests_per_second": 0.5, "request_burst": 3}
    with serve_in_process(**settings) as running:
        other = running.another(**settings)
        path = "/jobs/0123"
        for api in (running.api, other, running.api):
            assert api.get(path, headers=bearer(ALICE)).status_code == 404
        limited = other.get(path, headers=bearer(ALICE))
        assert_limited(limited, "too_many_requests")
        assert int(limited.headers["retry-after"]) <= 2
        assert_limited(submit(running.api), "too_many_requests")
        assert running.api.get(path, headers=bearer(BOB)).status_code == 404
        assert running.api.get("/healthz").status_code == 200
        assert running.api.get(path).status_code == 401
        assert eventually(lambda: running.api.get(path, headers=bearer(ALICE)).status_code == 404, 10)


def test_without_keys_an_address_has_the_rate() -> None:
    """The address is the caller's own where a trusted gateway tells it; Redis never holds it."""
    settings = {"requests_per_second": 0.01, "request_burst": 1, "trusted_proxies": "0.0.0.0/0"}
    with serve_in_process(**settings) as running:
        for address, status in [("192.0.2.7", 404), ("192.0.2.7", 429), ("192.0.2.8", 404)]:
            running.api._transport.client = ("10.0.0.1", 1)  # type: ignore[attr-defined]  # noqa: SLF001
            answer = running.api.get("/jobs/0123", headers={"X-Forwarded-For": address})
            assert answer.status_code == status, address
        assert not [key for key in running.redis.scan_iter() if b"192.0.2" in key]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("max_upload_bytes", 0),
        ("jobs_per_key", -1),
        ("requests_per_second", float("inf")),
        ("trusted_proxies", "gateway"),
        ("root_path", "faces/"),
        ("log_level", "LOUD"),
    ],
)
def test_a_setting_outside_its_range_is_named(name: str, value: object) -> None:
    """A service with a wrong setting does not start."""
    with pytest.raises(ValidationError, match=name):
        Settings(**{name: value})  # type: ignore[arg-type]
