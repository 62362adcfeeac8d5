"""`Idempotency-Key`: a request that is sent again makes no second job."""

from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest
from conftest import PHOTO, ROOT, Alone, serve_alone, wait_for_end
from test_waiting import finish, start

FORM = {"steps": "1", "faces": "aligned", "reference": "case 12"}
KEY = "8e03978e-40d5-43dd-bc93-6894a57f9324"


def send(api: httpx.Client, key: str | None = KEY, image: bytes | None = None, **form: str) -> httpx.Response:
    """Submit the sample photo, with a key."""
    headers = {"Idempotency-Key": key} if key is not None else {}
    files = {"image": image or PHOTO.read_bytes()}
    return api.post("/anonymize", files=files, data={**FORM, **form}, headers=headers)


def test_the_same_request_gives_the_same_job(queue_only: httpx.Client, alone: Alone) -> None:
    """Nothing is queued again, and a seed that was drawn stays as drawn; without a key jobs are their own."""
    first, second = send(queue_only), send(queue_only)
    assert (first.status_code, second.status_code) == (202, 202)
    assert second.headers["location"] == first.headers["location"]
    assert second.json()["parameters"] == first.json()["parameters"]
    assert alone.store.queued() == 1
    ids = {send(queue_only, key).json()["id"] for key in (None, None, "another", KEY)}
    assert len(ids) == 4
    assert alone.store.queued() == 4


def test_requests_at_the_same_moment_make_one_job(queue_only: httpx.Client, alone: Alone) -> None:
    """Sixteen at once, one job in the queue, one upload."""
    with ThreadPoolExecutor(16) as threads:
        answers = list(threads.map(lambda _: send(queue_only), range(16)))
    assert {answer.status_code for answer in answers} == {202}
    assert len({answer.json()["id"] for answer in answers}) == 1
    assert alone.store.queued() == 1
    assert len(list(alone.redis.scan_iter("face-anon:upload:*"))) == 1


@pytest.mark.parametrize(
    "change", [{"d": "1.0"}, {"seed": "7"}, {"reference": "case 13"}, {"image": "other"}]
)
def test_another_request_with_the_key_is_refused(
    queue_only: httpx.Client, alone: Alone, change: dict[str, str]
) -> None:
    """422 with a code of its own, whichever field or byte differs; the first job stays."""
    send(queue_only)
    image = (ROOT / "samples" / "turned.heic").read_bytes() if "image" in change else None
    form = {name: value for name, value in change.items() if name != "image"}
    answer = send(queue_only, image=image, **form)
    assert (answer.status_code, answer.json()["code"]) == (422, "idempotency_key_reused")
    assert alone.store.queued() == 1


def test_a_finished_job_is_given_again(api: httpx.Client) -> None:
    """After the end the same request is a 200 with the finished job."""
    key = "a key of the shared service"
    ended = wait_for_end(api, send(api, key).json())
    again = send(api, key)
    assert (again.status_code, again.json()) == (200, ended)


@pytest.mark.parametrize("key", ["", "x" * 256])
def test_a_key_outside_its_limits_is_named(queue_only: httpx.Client, key: str) -> None:
    """1 to 255 characters."""
    answer = send(queue_only, key)
    assert answer.status_code == 422
    assert answer.json()["errors"][0]["field"] == "Idempotency-Key"


def test_a_key_lives_as_long_as_its_job(queue_only: httpx.Client, alone: Alone) -> None:
    """It expires with the finished job and goes with a deleted one; neither key nor request is readable."""
    job = send(queue_only).json()
    (name,) = alone.redis.scan_iter("face-anon:idempotency:*")
    assert KEY.encode() not in name
    finish(alone.store, start(alone.store, job["id"]))
    record = f"face-anon:job:{job['id']}"
    assert abs(alone.redis.expiretime(name) - alone.redis.expiretime(record)) <= 1
    queue_only.delete(job["links"]["self"])
    assert list(alone.redis.scan_iter("face-anon:*")) == [b"face-anon:durations"]
    assert send(queue_only).json()["id"] != job["id"]


def test_a_full_queue_still_knows_its_jobs() -> None:
    """429 for a new job, the earlier one for its own key."""
    with (
        serve_alone(max_queued_jobs=1) as running,
        httpx.Client(base_url=running.url, timeout=10) as api,
    ):
        first = send(api)
        assert send(api, "another").json()["code"] == "queue_full"
        assert send(api).json()["id"] == first.json()["id"]
