"""The page at `/` in a real Chromium, with a real service and worker behind it."""

import base64
import re
from collections.abc import Iterator
from decimal import ROUND_HALF_UP, Decimal
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from browsing import (
    Pixels,
    choose_sample,
    chromium,
    decoded,
    seen,
    set_options,
    shown_pixels,
    submitted,
    visit,
    wait_for_result,
)
from conftest import ROOT, Running, wait_for_end
from PIL import Image
from playwright.sync_api import Browser, Page, expect

SAMPLES = ROOT / "samples"
DEGREES = [0.25, 0.5, 0.75, 1, 1.25, 1.5]

RECORD_PROGRESS = """() => {
  window.seenWords = [];
  const words = document.getElementById("running-words");
  new MutationObserver(() => window.seenWords.push(words.textContent)).observe(words, { childList: true });
}"""


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Share one Chromium; each test has a profile of its own."""
    with chromium() as running:
        yield running


def test_a_sample_goes_the_whole_way(browser: Browser, served: Running, api: httpx.Client) -> None:
    """Sample, options, progress, picture, compare, faces, download, erase: all as the service has it."""
    with visit(browser, served.url) as page:
        expect(page.locator("#state-words")).to_have_text("Ready")
        choose_sample(page, "portrait-1.png")
        set_options(page, steps="24", seed="7")
        page.locator("#d").fill("1.2")
        page.evaluate(RECORD_PROGRESS)
        job = submitted(page, "#go")
        assert (job["parameters"]["d"], job["parameters"]["seed"], job["parameters"]["steps"]) == (1.2, 7, 24)
        wait_for_result(page)
        words = page.evaluate("window.seenWords")
        assert any(re.fullmatch(r"Step \d+ of 24", sentence) for sentence in words), words

        job = wait_for_end(api, job)
        result = api.get(job["links"]["result"]).content
        assert np.array_equal(shown_pixels(page.locator("#after")), decoded(result))
        assert np.array_equal(
            shown_pixels(page.locator("#before")), decoded((SAMPLES / "portrait-1.png").read_bytes())
        )

        (face,) = job["result"]["faces"]
        card = page.locator("#faces > li")
        distance = Decimal(str(face["identity_distance"]))  # a browser rounds what is written, halves up
        expect(card).to_contain_text(str(distance.quantize(Decimal("0.01"), ROUND_HALF_UP)))
        expect(card).to_contain_text("Replaced")
        page.locator("#show-faces").click()
        box, stage = page.locator("#boxes > .box").bounding_box(), page.locator("#canvas").bounding_box()
        assert box
        assert stage
        scale = stage["width"] / job["result"]["width"]
        placed = [box["x"] - stage["x"], box["y"] - stage["y"], box["width"], box["height"]]
        assert placed == pytest.approx([scale * side for side in face["box"]], abs=1.5)

        with page.expect_download() as download:
            page.locator("#download").click()
        assert Path(download.value.path()).read_bytes() == result
        assert download.value.suggested_filename.endswith("anonymized.png")

        page.locator("#erase").click()
        expect(page.locator("#tray .tile .note")).to_have_text("Erased")
        expect(page.locator("#after")).to_be_hidden()
        assert api.get(job["links"]["self"]).status_code == 404


def unlike(one: Pixels, other: Pixels, part: tuple[slice, slice]) -> float:
    """Return how much a part of two pictures differs, 0 to 255."""
    return float(np.abs(one[part].astype(int) - other[part]).mean())


def test_the_slider_uncovers_what_was_before(browser: Browser, served: Running) -> None:
    """At one end the photo as it was, at the other the new face; by keys, by mouse, and zoomed."""
    with visit(browser, served.url) as page:
        choose_sample(page, "astronaut.png")
        set_options(page, steps="1", seed="1")
        page.locator("#go").click()
        wait_for_result(page)
        slider, canvas = page.locator("#compare"), page.locator("#canvas")
        slider.press("End")
        before = seen(canvas)
        slider.press("Home")
        after = seen(canvas)
        height, width, _ = before.shape
        with Image.open(SAMPLES / "astronaut.png") as image:
            photo = np.asarray(image.convert("RGB").resize((width, height), Image.Resampling.BILINEAR))
        # her face is from 0.34 to 0.53 of the width and 0.15 to 0.35 of the height
        face = np.s_[int(0.18 * height) : int(0.32 * height), int(0.36 * width) : int(0.47 * width)]
        shoes = np.s_[int(0.85 * height) : int(0.95 * height), int(0.55 * width) : int(0.65 * width)]
        assert unlike(before, photo, face) < 6
        assert unlike(before, after, face) > 20
        assert unlike(before, after, shoes) < 1

        place = canvas.bounding_box()
        assert place
        page.mouse.move(place["x"] + 20, place["y"] + 30)
        page.mouse.down()
        page.mouse.move(place["x"] + place["width"] * 0.42, place["y"] + 30, steps=3)
        page.mouse.up()
        assert slider.input_value() == "42"
        divided = seen(canvas)
        left, right = (
            np.s_[face[0], int(start * width) : int(end * width)]
            for start, end in ((0.36, 0.41), (0.43, 0.47))
        )
        assert unlike(divided, before, left) < 1
        assert unlike(divided, after, left) > 20
        assert unlike(divided, after, right) < 1
        assert unlike(divided, before, right) > 20

        page.locator("#faces .look").click()
        assert unlike(divided, seen(canvas), np.s_[:, :]) > 20


def test_own_files_are_swapped(browser: Browser, served: Running, api: httpx.Client, tmp_path: Path) -> None:
    """A JPEG of one's own is the photo, a sample gives the identity; the picture comes back as JPEG."""
    own = tmp_path / "holiday.jpg"
    with Image.open(SAMPLES / "portrait-4.png") as image:
        image.save(own, quality=92)
    with visit(browser, served.url) as page:
        page.locator("#photo-file").set_input_files(own)
        expect(page.locator("#photo-name")).to_have_text("holiday.jpg")
        page.get_by_role("radio", name="Swap").check()
        expect(page.locator("#d")).to_be_hidden()
        page.locator("#go").click()
        expect(page.locator("#trouble")).to_contain_text("Choose whose face it shall be")
        page.locator("#source-samples button:has(img[src$='portrait-2.png'])").click()
        expect(page.locator("#source-preview")).to_be_visible()
        set_options(page, steps="2", seed="9223372036854775807")
        job = submitted(page, "#go", "swap")
        wait_for_result(page)
        job = wait_for_end(api, job)
        assert (job["kind"], job["parameters"]["seed"]) == ("swap", 2**63 - 1)
        expect(page.locator("#facts")).to_contain_text("seed 9223372036854775807")
        with page.expect_download() as download:
            page.locator("#download").click()
        assert download.value.suggested_filename == "holiday swapped.jpg"
        direct = {
            "source": (SAMPLES / "portrait-2.png").read_bytes(),
            "driving": own.read_bytes(),
        }
        again = api.post("/swap", files=direct, data={"steps": "2", "seed": str(2**63 - 1)}).json()
        wait_for_end(api, again)
        assert Path(download.value.path()).read_bytes() == api.get(again["links"]["result"]).content


def test_a_running_job_is_canceled(browser: Browser, served: Running, api: httpx.Client) -> None:
    """The job ends as canceled at the service, the page says so, and the next one can begin."""
    with visit(browser, served.url) as page:
        choose_sample(page, "portrait-1.png")
        set_options(page, steps="1000")
        job = submitted(page, "#go")
        expect(page.locator("#running-words")).to_contain_text(re.compile(r"Step [1-9]\d* of 1000"))
        assert float(page.locator("#running-bar").get_attribute("value") or 0) > 0
        page.locator("#stop").click()
        page.locator("#go").wait_for()
        expect(page.locator("#tray .note")).to_have_text("Canceled")
        expect(page.locator("#running")).to_be_hidden()
        assert wait_for_end(api, job)["status"] == "canceled"


def strip_jobs(page: Page, button: str, count: int) -> list[dict[str, Any]]:
    """Press a strip's button and return its finished jobs, in the order of the tiles."""
    jobs: list[dict[str, Any]] = []
    page.on(
        "response",
        lambda answer: jobs.append(answer.json()) if answer.url.endswith("/anonymize") else None,
    )
    page.locator(button).click()
    expect(page.locator(".row").first.locator("button.frame canvas, button.frame img")).to_have_count(count)
    page.locator("#go").wait_for()
    return jobs


def test_strips_show_one_photo_at_several_d_and_seeds(
    browser: Browser, served: Running, api: httpx.Client
) -> None:
    """Figures 4 and 5: one seed at six d, then five seeds at one d; each tile opens its own picture."""
    with visit(browser, served.url) as page:
        choose_sample(page, "portrait-2.png")
        set_options(page, steps="1", faces="aligned")
        jobs = strip_jobs(page, "#strip-d", len(DEGREES))
        assert [job["parameters"]["d"] for job in jobs] == DEGREES
        assert len({job["parameters"]["seed"] for job in jobs}) == 1
        row = page.locator(".row").first
        assert row.locator(".caption").all_inner_texts() == ["original", *(f"d {d:g}" for d in DEGREES)]
        for index in (4, 0):
            row.locator("button.frame").nth(index).click()
            expect(row.locator("[aria-current]")).to_have_count(1)
            result = api.get(jobs[index]["links"]["result"]).content
            expect(page.locator("#facts")).to_contain_text(f"d {DEGREES[index]:.2f}")
            assert np.array_equal(shown_pixels(page.locator("#after")), decoded(result))

        jobs = strip_jobs(page, "#strip-seed", 5)
        assert len({job["parameters"]["seed"] for job in jobs}) == 5
        assert {job["parameters"]["d"] for job in jobs} == {1.25}
        assert page.locator(".row").count() == 2
        page.locator("#erase-all").click()
        expect(page.locator(".row button.frame[disabled]")).to_have_count(11)
        assert {api.get(job["links"]["self"]).status_code for job in jobs} == {404}


def test_a_picture_the_browser_cannot_show_is_still_taken(browser: Browser, served: Running) -> None:
    """HEIC, as phones send it: the page says that it cannot show it, and shows the result without slider."""
    with visit(browser, served.url) as page:
        page.locator("#photo-file").set_input_files(SAMPLES / "turned.heic")
        expect(page.locator("#unseen")).to_be_visible()
        set_options(page, steps="1")
        page.locator("#go").click()
        wait_for_result(page)
        expect(page.locator("#unseen")).to_be_hidden()
        expect(page.locator("#divider")).to_be_hidden()
        assert shown_pixels(page.locator("#after")).std() > 10
        assert seen(page.locator("#canvas")).std() > 10


GIVE_FILE = """([selector, kind, base64]) => {
  const bytes = Uint8Array.from(atob(base64), (letter) => letter.charCodeAt(0));
  const given = new DataTransfer();
  given.items.add(new File([bytes], "mine.png", { type: "image/png" }));
  const options = { bubbles: true, cancelable: true };
  const event = kind === "paste"
    ? new ClipboardEvent(kind, { ...options, clipboardData: given })
    : new DragEvent(kind, { ...options, dataTransfer: given });
  document.querySelector(selector).dispatchEvent(event);
}"""


@pytest.mark.parametrize(("selector", "kind"), [("#stage", "drop"), ("body", "paste")])
def test_a_photo_is_dropped_or_pasted(browser: Browser, served: Running, selector: str, kind: str) -> None:
    """It is the photo that was given, in every pixel; one that is dropped beside the place is not taken."""
    content = (SAMPLES / "portrait-2.png").read_bytes()
    with visit(browser, served.url) as page:
        if kind == "drop":
            page.evaluate(GIVE_FILE, ["body", "drop", base64.b64encode(content).decode()])
            expect(page.locator("#view")).to_be_hidden()
        page.evaluate(GIVE_FILE, [selector, kind, base64.b64encode(content).decode()])
        page.locator("#view").wait_for()
        assert np.array_equal(shown_pixels(page.locator("#before"))[..., :3], decoded(content)[..., :3])


def test_the_documentation_is_a_page_to_try(browser: Browser, served: Running) -> None:
    """Every endpoint is there, nothing comes from elsewhere, and a request can be sent from it."""
    with visit(browser, served.url) as page:
        page.goto(f"{served.url}/docs")
        page.locator(".opblock").nth(7).wait_for()
        probe = page.locator(".opblock", has_text="/healthz")
        probe.locator("button").first.click()
        probe.get_by_role("button", name="Try it out").click()
        probe.get_by_role("button", name="Execute").click()
        expect(probe.locator(".live-responses-table .response-col_status").nth(1)).to_have_text(
            re.compile("200")
        )
