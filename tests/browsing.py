"""A real Chromium for the tests of the page: started, watched for everything it complains of, looked at."""

import base64
import contextlib
import io
import os
import shutil
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import Browser, ConsoleMessage, Locator, Page, Request, expect, sync_playwright

Pixels = np.ndarray[Any, np.dtype[np.uint8]]

PATIENCE_MS = 120_000
"""For what the worker does; on a quiet machine a hundredth of it is enough."""

QUIET = (
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-dev-shm-usage",
    "--disable-gpu",
    "--disable-sync",
    "--force-color-profile=srgb",
    "--no-first-run",
)
NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")

PIXELS_OF = """async image => {
  const { naturalWidth: width, naturalHeight: height } = image;
  const context = new OffscreenCanvas(width, height).getContext("2d");
  context.drawImage(image, 0, 0);
  const reader = new FileReader();
  reader.readAsDataURL(new Blob([context.getImageData(0, 0, width, height).data]));
  await new Promise((resolve) => reader.addEventListener("load", resolve));
  return [width, height, reader.result.split(",")[1]];
}"""


@contextlib.contextmanager
def chromium() -> Iterator[Browser]:
    """Start the machine's Chromium; where there is none the test is skipped, or fails if one is wanted."""
    path = next(filter(None, map(shutil.which, NAMES)), None)
    if path is None:
        if os.environ.get("FACE_ANON_WANT_BROWSER"):
            pytest.fail("FACE_ANON_WANT_BROWSER is set, and no Chromium is installed")
        pytest.skip("no Chromium is installed: the page is not tested")
    as_root = ["--no-sandbox"] if os.geteuid() == 0 else []
    expect.set_options(timeout=PATIENCE_MS)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=[*QUIET, *as_root])
        yield browser
        browser.close()


@contextlib.contextmanager
def visit(browser: Browser, url: str, *, expected: tuple[str, ...] = (), **options: Any) -> Iterator[Page]:  # noqa: ANN401
    """Open the page in a context of its own and, in the end, insist that nothing was complained of.

    Complaints are errors and warnings on the console (breaches of the Content-Security-Policy are such),
    exceptions, and requests to other hosts. Chromium logs every failed request: those are `expected`, by a
    part of their text. `options` are those of a browser context.
    """
    complaints: list[str] = []

    def on_console(message: ConsoleMessage) -> None:
        if message.type in {"error", "warning"} and not any(part in message.text for part in expected):
            complaints.append(f"{message.type}: {message.text}")

    def on_request(request: Request) -> None:
        if not request.url.startswith((url, "blob:", "data:")):
            complaints.append(f"a request to {request.url}")

    context = browser.new_context(
        **{"viewport": {"width": 1240, "height": 900}, "reduced_motion": "reduce", **options}
    )
    page = context.new_page()
    page.set_default_timeout(PATIENCE_MS)
    page.on("console", on_console)
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("request", on_request)
    page.goto(url)
    page.locator("#photo-samples button").first.wait_for()
    yield page
    context.close()
    assert complaints == []


def choose_sample(page: Page, name: str) -> None:
    """Take one of the sample photos."""
    page.locator(f"#photo-samples button:has(img[src$='{name}'])").click()
    page.locator("#view").wait_for()


def set_options(page: Page, **options: str) -> None:
    """Fill in options by their names; those folded away are unfolded."""
    for name, value in options.items():
        if name != "seed":
            page.locator("#more").evaluate("more => { more.open = true; }")
        field = page.locator(f"#options [name={name}]")
        if field.evaluate("field => field.tagName") == "SELECT":
            field.select_option(value)
        else:
            field.fill(value)


def submitted(page: Page, button: str, kind: str = "anonymize") -> dict[str, Any]:
    """Press a button and return the job that the service answers with."""
    with page.expect_response(lambda response: response.url.endswith(f"/{kind}")) as answer:
        page.locator(button).click()
    assert answer.value.status == 202, answer.value.text()
    job: dict[str, Any] = answer.value.json()
    return job


def shown_pixels(image: Locator) -> Pixels:
    """Return what an <img> shows, decoded by the browser, (height, width, 3)."""
    width, height, values = image.evaluate(PIXELS_OF)
    return np.frombuffer(base64.b64decode(values), np.uint8).reshape(height, width, 4)[..., :3]


def decoded(picture: bytes) -> Pixels:
    """Return the pixels of a picture's bytes, (height, width, 3)."""
    with Image.open(io.BytesIO(picture)) as image:
        return np.asarray(image.convert("RGB"))


def seen(place: Locator) -> Pixels:
    """Return what a person sees of an element, (height, width, 3)."""
    return decoded(place.screenshot())


def seen_around(place: Locator, margin: float = 8) -> Pixels:
    """Return what a person sees of an element and a little around it, (height, width, 3)."""
    box = place.bounding_box()
    assert box
    return decoded(
        place.page.screenshot(
            clip={
                "x": box["x"] - margin,
                "y": box["y"] - margin,
                "width": box["width"] + 2 * margin,
                "height": box["height"] + 2 * margin,
            }
        )
    )


def overflow(page: Page) -> int:
    """Return how many pixels of the page lie beyond its right edge."""
    pixels: int = page.evaluate("document.documentElement.scrollWidth - innerWidth")
    return pixels


def wait_for_result(page: Page) -> None:
    """Wait until a picture is on the stage and nothing is under way."""
    page.locator("#download").wait_for()
    page.locator("#go").wait_for()
