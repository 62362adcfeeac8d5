"""The Python client, with and without asyncio, against the real service: jobs, progress, errors, secrets."""

import asyncio
import io
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import httpx
import pytest
from conftest import PHOTO, Alone, Running
from gateway import Busy, Gateway, gateway
from PIL import Image
from test_waiting import finish, start

from face_anon_client import (
    AsyncClient,
    AsyncJob,
    AuthenticationError,
    Client,
    FaceAnonError,
    InvalidRequestError,
    Job,
    JobCanceledError,
    JobFailedError,
    JobNotFoundError,
    JobState,
    Parameters,
    ProblemError,
    RateLimitedError,
    ResultExpiredError,
    ServiceUnreachableError,
    Status,
    SwapParameters,
    UnexpectedAnswerError,
    WaitTimeoutError,
)
from face_anon_client.retries import Retries
from jobs.contract import Outcome, Problem, Progress
from jobs.contract import Status as JobStatus

QUICK: Parameters = {"steps": 2, "faces": "aligned"}
QUICK_SWAP: SwapParameters = {"steps": 1, "faces": "aligned"}
IMPATIENT = Retries(attempts=2, first_seconds=0.01)


def test_a_photo_from_file_to_file(served: Running, tmp_path: Path) -> None:
    """The line in the documentation: submit, wait, save; what became of the face is known."""
    with Client(served.url) as client:
        job = client.anonymize(PHOTO, d=1.25, seed=1, steps=2)
        assert job.wait() is job
        assert job.save(tmp_path / "out.png") == tmp_path / "out.png"
    state = job.state
    assert (state.status, state.kind, state.error) == (Status.SUCCEEDED, "anonymize", None)
    assert (state.parameters.d, state.parameters.seed, state.parameters.steps) == (1.25, 1, 2)
    assert state.result
    (face,) = state.result.faces
    assert (face.status, face.seed, len(face.box)) == ("replaced", 1, 4)
    assert face.identity_distance is not None
    assert state.finished_at
    assert state.finished_at > state.created_at
    assert state.model
    assert state.timings.sample_ms is not None
    with Image.open(tmp_path / "out.png") as out, Image.open(PHOTO) as photo:
        assert (out.format, out.size) == ("PNG", (state.result.width, state.result.height))
        assert out.convert("RGB").tobytes() != photo.convert("RGB").tobytes()
    assert list(tmp_path.iterdir()) == [tmp_path / "out.png"]


def test_a_swap_with_asyncio(served: Running, tmp_path: Path) -> None:
    """Bytes and an open file are pictures too; several jobs go on at once; the same seed, the same bytes."""

    async def swap() -> tuple[AsyncJob, list[bytes]]:
        async with AsyncClient(served.url) as client:
            with PHOTO.open("rb") as driving:
                job = await client.swap(
                    PHOTO.read_bytes(), driving, seed=3, reference="case 12", **QUICK_SWAP
                )
            other = await client.swap(bytearray(PHOTO.read_bytes()), str(PHOTO), seed=3, **QUICK_SWAP)
            await job.wait()
            await job.save(tmp_path / "out.png")
            found = await client.job(other.id)
            return job, list(await asyncio.gather(job.result(), found.result()))

    job, pictures = asyncio.run(swap())
    assert (job.state.kind, job.state.parameters.d, job.state.reference) == ("swap", None, "case 12")
    assert pictures[0] == pictures[1] == (tmp_path / "out.png").read_bytes()


@pytest.mark.usefixtures("queue_only")
def test_what_is_left_out_is_left_to_the_service(alone: Alone) -> None:
    """No default of the client's own is sent; the service's fill the job in. None counts as left out."""
    with gateway(alone.url) as between, Client(between.url) as client:
        job = client.anonymize(PHOTO, seed=None)  # type: ignore[arg-type]  # callers do
        sent = between.heard[0].headers
    assert job.state.parameters.d == 1.25
    assert job.state.parameters.steps == 200
    assert job.status is Status.QUEUED
    assert job.state.queue
    assert job.state.queue.position == 1
    assert int(sent["content-length"]) < PHOTO.stat().st_size + 300  # one part: the photo, without its name
    with pytest.raises(TypeError, match="unknown parameter 'degree'"), Client(alone.url) as client:
        client.anonymize(PHOTO, degree=1.0)  # type: ignore[call-arg]


def play_worker(alone: Alone, job_id: str, seen: list[JobState], told: threading.Event) -> None:
    """Do a job as a worker does, each step once the last one has been seen."""
    steps = 2
    request = start(alone.store, job_id)
    for step in range(1, steps + 1):
        told.wait(20)
        told.clear()
        alone.store.report(job_id, Progress(fraction=step / steps, face=1, faces=1, step=step, steps=steps))
    while not any(state.progress and state.progress.step == steps for state in seen):
        assert told.wait(20)
        told.clear()
    finish(alone.store, request)


@pytest.mark.usefixtures("queue_only")
@pytest.mark.parametrize("asynchronous", [False, True])
@pytest.mark.parametrize("events", [True, False])
def test_progress_is_told(alone: Alone, asynchronous: bool, events: bool) -> None:
    """Each change is told by server-sent events; without them, by a poll each second."""
    seen: list[JobState] = []
    told = threading.Event()

    def on_progress(state: JobState) -> None:
        seen.append(state)
        told.set()

    async def on_progress_async(state: JobState) -> None:
        await asyncio.sleep(0)
        on_progress(state)

    async def run_async(url: str, threads: ThreadPoolExecutor) -> JobState:
        async with AsyncClient(url) as client:
            job = await client.anonymize(PHOTO, **QUICK)
            work = threads.submit(play_worker, alone, job.id, seen, told)
            await job.wait(timeout=120, on_progress=on_progress_async)
            work.result(20)
            return job.state

    def run(url: str, threads: ThreadPoolExecutor) -> JobState:
        with Client(url) as client:
            job = client.anonymize(PHOTO, **QUICK)
            work = threads.submit(play_worker, alone, job.id, seen, told)
            job.wait(timeout=120, on_progress=on_progress)
            work.result(20)
            return job.state

    with gateway(alone.url) as between, ThreadPoolExecutor() as threads:
        if not events:
            between.troubles = [(r"GET .*/events", Busy(404))] * 3
        state = asyncio.run(run_async(between.url, threads)) if asynchronous else run(between.url, threads)
        polls = between.lines(r"GET .*\?wait=.*")
    assert seen[0].status in {Status.QUEUED, Status.RUNNING}
    assert seen[-1] == state
    assert state.status is Status.SUCCEEDED
    fractions = [now.progress.fraction for now in seen if now.progress]
    assert fractions == sorted(fractions)
    assert fractions[-1] == 1.0
    assert len(seen) == len(set(map(repr, seen)))  # changes, nothing twice
    assert bool(polls) is not events


@pytest.mark.usefixtures("queue_only")
def test_a_wait_ends_at_its_timeout(alone: Alone) -> None:
    """`TimeoutError`, as the language has it; the job goes on and can be waited for again."""
    with Client(alone.url) as client:
        job = client.anonymize(PHOTO, **QUICK)
        with pytest.raises(TimeoutError) as caught:
            job.wait(timeout=0.2)
        assert isinstance(caught.value, WaitTimeoutError)
        assert caught.value.state.id == job.id
        with pytest.raises(WaitTimeoutError, match=r"still queued after 1\.2 s"):
            job.wait(timeout=1.2, on_progress=lambda _: None)
        finish(alone.store, start(alone.store, job.id))
        assert job.wait(timeout=30).result() == b"picture"


@pytest.mark.usefixtures("queue_only")
def test_cancel_and_delete(alone: Alone) -> None:
    """A canceled job has no picture; a deleted one is gone, and deleting it again is no error."""
    with Client(alone.url) as client:
        job = client.anonymize(PHOTO, **QUICK)
        assert job.cancel().status is Status.CANCELED
        with pytest.raises(JobCanceledError, match=job.id):
            job.result()
        job.delete()
        job.delete()
        with pytest.raises(JobNotFoundError) as caught:
            job.refresh()
        assert (caught.value.status, caught.value.code) == (404, "job_not_found")
        with pytest.raises(JobNotFoundError):
            client.job("../healthz")


@pytest.mark.usefixtures("queue_only")
def test_a_job_that_failed_says_why(alone: Alone) -> None:
    """The code and the sentence of the job's problem, and whether another try may help."""
    with Client(alone.url) as client:
        job = client.anonymize(PHOTO, **QUICK)
        request = start(alone.store, job.id)
        problem = Problem(title="Failed", detail="no face in source", code="no_face", retryable=False)
        outcome = Outcome(status=JobStatus.FAILED, finished_at=request.created_at, error=problem)
        assert alone.store.publish(request, outcome, None)
        with pytest.raises(JobFailedError, match="no face in source") as caught:
            job.wait()
    assert (caught.value.code, caught.value.retryable) == ("no_face", False)
    assert job.status is Status.FAILED


@pytest.mark.usefixtures("queue_only")
def test_an_expired_picture_is_an_error_of_its_own(alone: Alone) -> None:
    """410 while the job is still known."""
    with Client(alone.url) as client:
        job = client.anonymize(PHOTO, **QUICK)
        finish(alone.store, start(alone.store, job.id))
        assert alone.redis.delete(f"face-anon:result:{job.id}") == 1
        with pytest.raises(ResultExpiredError):
            job.result()


@pytest.mark.usefixtures("queue_only")
def test_a_refused_request_names_the_field(alone: Alone) -> None:
    """The problem document's fields are the exception's, and it is not sent a second time."""
    with gateway(alone.url) as between, Client(between.url) as client:
        with pytest.raises(InvalidRequestError) as wrong_d:
            client.anonymize(PHOTO, d=3.5)
        with pytest.raises(InvalidRequestError) as no_picture:
            client.anonymize(io.BytesIO(b"not a picture"))
        assert len(between.heard) == 2
    assert (wrong_d.value.status, wrong_d.value.code) == (422, "invalid_parameter")
    assert [error.field for error in wrong_d.value.errors] == ["d"]
    assert not wrong_d.value.retryable
    assert (no_picture.value.status, no_picture.value.code) == (415, "not_a_picture")
    with pytest.raises(FileNotFoundError), Client(alone.url) as client:
        client.anonymize("/no/such/photo.jpg")


@pytest.mark.parametrize(
    ("status", "kind"),
    [(401, AuthenticationError), (403, AuthenticationError), (429, RateLimitedError), (500, ProblemError)],
)
def test_every_refusal_has_its_class(alone: Alone, status: int, kind: type[ProblemError]) -> None:
    """With the request's id, which finds it in the service's logs, and when to come again."""
    with gateway(alone.url) as between, Client(between.url, retries=IMPATIENT) as client:
        between.troubles = [("POST .*", Busy(status, "0", code="told"))] * 2
        with pytest.raises(FaceAnonError) as caught:
            client.anonymize(PHOTO)
    error = caught.value
    assert type(error) is kind
    assert (error.status, error.code, error.request_id, error.retry_after) == (
        status,
        "told",
        "request-7",
        0.0,
    )
    assert error.retryable is (status == 429)


def test_another_server_is_told_apart(served: Running) -> None:
    """An address where something else answers, or nothing, is said to be wrong in words."""
    with Client(f"{served.url}/docs", retries=IMPATIENT) as client, pytest.raises(FaceAnonError, match="404"):
        client.anonymize(PHOTO)
    http = httpx.Client(transport=httpx.MockTransport(lambda _: httpx.Response(200, html="<p>Welcome")))
    with http:
        with (
            Client("http://other.example", http=http) as client,
            pytest.raises(UnexpectedAnswerError, match="right address"),
        ):
            client.anonymize(PHOTO)
        assert not http.is_closed  # it is the caller's
    with Client("http://127.0.0.1:9", retries=IMPATIENT) as client, pytest.raises(ServiceUnreachableError):
        client.anonymize(PHOTO)
    for address in ("127.0.0.1:8000", "ftp://host", "https://user:secret@host/"):
        with pytest.raises(ValueError, match=r"base URL|address of a service") as caught:
            Client(address)
        assert "secret" not in str(caught.value)


def test_secrets_stay_out_of_words(
    alone: Alone, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Neither key nor picture is in a repr, an error or a log record; the key goes out as a bearer token."""
    monkeypatch.setenv("FACE_ANON_API_KEY", "key-of-mine")
    caplog.set_level("DEBUG")
    with gateway(alone.url) as between:
        monkeypatch.setenv("FACE_ANON_URL", between.url)
        with Client(retries=IMPATIENT) as client:
            between.troubles = [("POST .*", Busy(503, "0"))] * 2
            with pytest.raises(ProblemError) as caught:
                client.anonymize(b"picture-of-mine")
            assert between.heard[0].headers["authorization"] == "Bearer key-of-mine"
    words = f"{client!r} {vars(client)} {caught.value!r} {vars(caught.value)} {caplog.text}"
    assert between.url in words
    assert "of-mine" not in words
    with pytest.raises(ValueError, match="characters that cannot be sent") as unsendable:
        Client(alone.url, api_key="key\nof-mine")
    assert "of-mine" not in str(unsendable.value)


@pytest.mark.usefixtures("queue_only")
def test_a_key_goes_to_no_other_origin(alone: Alone) -> None:
    """A link to somewhere else is followed at the service's own address only."""
    with gateway(alone.url, "/face-anon") as between, Client(between.url, "key") as client:
        job = client.anonymize(PHOTO, **QUICK)
        elsewhere = replace(job.state.links, self=f"http://127.0.0.1:9/jobs/{job.id}")
        job.state = replace(job.state, links=elsewhere)
        assert job.refresh().status is Status.QUEUED
        assert between.heard[-1].line == f"GET /jobs/{job.id}"


def test_a_root_path_is_kept(served: Running) -> None:
    """Also where the gateway takes its prefix off and does not tell the service."""
    with gateway(served.url, "/tools/face-anon") as between, Client(f"{between.url}/") as client:
        job: Job = client.anonymize(PHOTO, **QUICK).wait(on_progress=lambda _: None)
        assert client.job(job.id).result() == job.result()
        assert _targets(between) == {"POST /anonymize", "GET JOB/events", "GET JOB", "GET JOB/result"}


def _targets(between: Gateway) -> set[str]:
    parts = (heard.line.split("?")[0].split("/") for heard in between.heard)
    return {"/".join(part) if len(part) < 3 else "/".join((part[0] + "JOB", *part[3:])) for part in parts}
