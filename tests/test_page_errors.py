"""What goes wrong, in words on the page, and what the page does: it tries again, asks, or says why."""

import json
import re
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import pytest
from browsing import choose_sample, chromium, set_options, submitted, visit
from conftest import PHOTO, Alone, Running, serve_alone
from gateway import Busy, Trouble, gateway
from playwright.sync_api import Browser, Page, expect

from jobs.contract import Outcome, PictureResult, Problem, Progress, Status

KEY = "a-key-that-only-ann-has"
FAST = {"steps": "1", "faces": "aligned"}


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Share one Chromium; each test has a profile of its own."""
    with chromium() as running:
        yield running


def upload(name: str, kind: str, content: bytes) -> dict[str, Any]:
    """Return a file as Playwright hands it to a page."""
    return {"name": name, "mimeType": kind, "buffer": content}


def test_what_cannot_be_taken_is_said_before_the_upload(
    browser: Browser, alone: Alone, tmp_path: Path
) -> None:
    """Too large, empty, or no picture: no byte is sent, and the photo that was there stays."""
    with visit(browser, alone.url) as page:
        sent: list[str] = []
        page.on("request", lambda request: sent.append(request.url) if request.method == "POST" else None)
        trouble, photo = page.locator("#trouble"), page.locator("#photo-file")
        with (tmp_path / "large.png").open("wb") as large:
            large.truncate(20_000_001)
        photo.set_input_files(tmp_path / "large.png")
        expect(trouble).to_contain_text("The file is too large. It has 20.1 MB, the limit is 20 MB.")
        photo.set_input_files(upload("empty.png", "image/png", b""))
        expect(trouble).to_contain_text("The file is empty.")
        photo.set_input_files(upload("letter.pdf", "application/pdf", b"%PDF-1.7"))
        expect(trouble).to_contain_text("This is not a picture the service reads. It reads JPEG, PNG")
        page.locator("#go").click()
        expect(trouble).to_contain_text("Choose a photo first")
        choose_sample(page, "portrait-1.png")
        expect(trouble).to_be_hidden()
        page.locator("#seed").fill("9223372036854775808")
        page.locator("#go").click()
        assert "0 to 9223372036854775807" in page.locator("#seed").evaluate("seed => seed.validationMessage")
        assert sent == []


def test_what_only_the_service_can_see_is_said_after_it(browser: Browser, alone: Alone) -> None:
    """A text that calls itself PNG, and a picture that breaks off, are told apart."""
    with visit(browser, alone.url, expected=("415",)) as page:
        for content, words in (
            (b"Dear Sir", "This is not a picture the service reads"),
            (PHOTO.read_bytes()[:5000], "The picture is broken"),
        ):
            page.locator("#photo-file").set_input_files(upload("photo.png", "image/png", content))
            page.locator("#go").click()
            expect(page.locator("#trouble")).to_contain_text(words)
            expect(page.locator("#go")).to_be_visible()
            page.locator("#photo-change").click()


def test_a_full_queue_is_tried_again(browser: Browser) -> None:
    """429: a countdown by Retry-After, then the job is taken; then 503 the same way, and it can be left."""
    with (
        serve_alone(max_queued_jobs=1) as running,
        httpx.Client(base_url=running.url, timeout=30) as api,
        visit(browser, running.url, expected=("429", "503")) as page,
    ):
        first = api.post("/anonymize", files={"image": PHOTO.read_bytes()}, data=FAST).json()
        choose_sample(page, "portrait-1.png")
        page.locator("#go").click()
        words = page.locator("#running-words")
        expect(words).to_have_text(re.compile(r"The queue is full\. Trying again in [1-5] seconds?"))
        api.delete(first["links"]["self"])
        expect(words).to_contain_text("Next in the queue. No worker is ready yet")
        page.locator("#stop").click()
        page.locator("#go").wait_for()

        running.redis.shutdown(nosave=True)
        page.locator("#go").click()
        expect(words).to_have_text(
            re.compile(r"The service is not able to take photos just now\. Trying again")
        )
        page.locator("#stop").click()
        expect(page.locator("#tray .note").last).to_have_text("Canceled")


def played(page: Page, alone: Alone, outcome: Outcome, picture: bytes | None = None) -> None:
    """Submit a sample and end its job as a worker would."""
    choose_sample(page, "portrait-1.png")
    job = submitted(page, "#go")
    started = alone.store.start(job["id"])
    assert started
    assert alone.store.publish(started[0], outcome, picture)


def test_the_place_in_the_queue_is_told(browser: Browser, alone: Alone, queue_only: httpx.Client) -> None:
    """Its number counts down as others go, then come the faces, and their steps."""
    others = [
        queue_only.post("/anonymize", files={"image": PHOTO.read_bytes()}, data=FAST).json() for _ in range(2)
    ]
    words = "#running-words"
    with visit(browser, alone.url) as page:
        choose_sample(page, "portrait-1.png")
        job = submitted(page, "#go")
        expect(page.locator(words)).to_contain_text("Number 3 in the queue. No worker is ready yet")
        queue_only.delete(others[0]["links"]["self"])
        expect(page.locator(words)).to_contain_text("Number 2 in the queue")
        queue_only.delete(others[1]["links"]["self"])
        expect(page.locator(words)).to_contain_text("Next in the queue")
        alone.redis.hset(f"rq:job:{job['id']}", "status", "started")  # as a worker's RQ does
        alone.store.start(job["id"])
        expect(page.locator(words)).to_have_text("Looking for faces")
        alone.store.report(job["id"], Progress(fraction=0.5, face=2, faces=3, step=10, steps=20))
        expect(page.locator(words)).to_have_text("Face 2 of 3, step 10 of 20")
        assert page.locator("#running-bar").get_attribute("value") == "0.5"
        queue_only.delete(job["links"]["self"])
        expect(page.locator("#trouble")).to_contain_text("The service no longer knows this job")


def test_a_failed_job_says_why_and_can_be_tried_again(
    browser: Browser, alone: Alone, queue_only: httpx.Client
) -> None:
    """The worker's own sentence is shown; the button makes a new job of the same photo and options."""
    problem = Problem(title="Out of memory", detail="the photo did not fit", code="memory", retryable=True)
    failed = Outcome(status=Status.FAILED, finished_at=datetime.now(UTC), error=problem)
    with visit(browser, alone.url) as page:
        set_options(page, seed="11")
        played(page, alone, failed)
        expect(page.locator("#trouble")).to_contain_text("Out of memory. The photo did not fit.")
        job = submitted(page, "#trouble-again")
        assert job["parameters"]["seed"] == 11
        assert queue_only.get(job["links"]["self"]).json()["status"] == "queued"


def test_an_expired_picture_is_said_to_be(browser: Browser, alone: Alone) -> None:
    """410: the job is done, its picture is no more."""
    result = PictureResult(media_type="image/png", width=1, height=1, faces=[])
    done = Outcome(status=Status.SUCCEEDED, finished_at=datetime.now(UTC), result=result)
    with visit(browser, alone.url, expected=("410",)) as page:
        played(page, alone, done)
        expect(page.locator("#trouble")).to_contain_text("The picture has expired")


def test_a_broken_line_is_mended(browser: Browser, served: Running) -> None:
    """Behind a root path: a dropped upload, a lost answer, a cut stream and a busy gateway make one job."""
    with (
        gateway(served.url, "/deep/face-anon") as front,
        visit(browser, f"{front.url}/", expected=("ERR_", "503")) as page,
    ):
        front.troubles += [
            ("POST /anonymize", Trouble.DROP),
            ("GET /jobs/.*/events", Trouble.CUT),
            ("GET /jobs/.*/result", Busy(503, "1")),
        ]
        choose_sample(page, "portrait-1.png")
        set_options(page, steps="30")
        page.locator("#go").click()
        words = page.locator("#running-words")
        expect(words).to_contain_text("The service cannot be reached. Trying again in")
        page.locator("#download").wait_for()
        assert front.troubles == []
        assert len(set(front.lines("GET /jobs/.*/events"))) == 1
        assert len(front.lines("GET /jobs/.*/events")) == 2

        front.troubles.append(("POST /anonymize", Trouble.LOSE))
        set_options(page, **FAST)
        page.locator("#go").click()
        expect(words).to_contain_text("The service cannot be reached. Trying again in")
        expect(page.locator(".tile canvas")).to_have_count(3)
        posts = [request for request in front.heard if request.line == "POST /anonymize"]
        assert len(posts) == 4
        assert len({request.headers["idempotency-key"] for request in posts}) == 2
        assert len(set(front.lines("GET /jobs/.*/result"))) == 2


def test_the_page_works_offline_until_the_line_is_back(browser: Browser, served: Running) -> None:
    """Without a line the page says so and counts down; with it the job goes on by itself."""
    with visit(browser, served.url, expected=("ERR_INTERNET_DISCONNECTED",)) as page:
        choose_sample(page, "portrait-1.png")
        set_options(page, **FAST)
        page.context.set_offline(True)
        page.locator("#go").click()
        expect(page.locator("#running-words")).to_contain_text("You are offline. Trying again in")
        page.context.set_offline(False)
        page.locator("#download").wait_for()


def test_a_key_is_asked_for(browser: Browser) -> None:
    """Behind a root path, with keys: the page opens, asks, knows a wrong key, and uses the right one."""
    with (
        serve_alone(api_keys=f"ann:{KEY}", root_path="/faces") as running,
        visit(browser, f"{running.url}/faces/", expected=("401",)) as page,
    ):
        posted: list[str | None] = []
        page.on(
            "request",
            lambda request: (
                posted.append(request.headers.get("authorization")) if request.method == "POST" else None
            ),
        )
        choose_sample(page, "portrait-4.png")
        set_options(page, steps="1", seed="3")
        page.locator("#go").click()
        dialog = page.locator("#key-dialog")
        expect(dialog).to_contain_text("This service asks for a key")
        assert posted == []
        page.keyboard.press("Escape")
        expect(page.locator("#trouble")).to_contain_text("A key is needed")
        page.locator("#trouble-again").click()
        page.locator("#key").fill("a-key-that-nobody-has")
        page.keyboard.press("Enter")
        expect(dialog).to_contain_text("The service does not know this key.")
        page.locator("#key").fill(KEY)
        page.keyboard.press("Enter")
        expect(page.locator("#running-words")).to_contain_text("Next in the queue")
        assert posted == ["Bearer a-key-that-nobody-has", f"Bearer {KEY}"]

        stored = page.evaluate(
            "[JSON.stringify(sessionStorage), JSON.stringify(localStorage), document.cookie]"
        )
        assert json.loads(stored[0]) == {"face-anon.key": KEY}
        assert stored[1:] == ["{}", ""]
        assert page.evaluate("caches.keys()") == []
        assert page.evaluate("indexedDB.databases()") == []
        page.locator("#key-open").click()
        page.locator("#key-forget").click()
        assert page.evaluate("sessionStorage.length") == 0
