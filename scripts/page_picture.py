"""Makes the picture of the page in the README: starts everything, has a strip made of a sample photo in a
real Chromium, opens one of its pictures, and takes what is then seen.

Run as `python scripts/page_picture.py [SAMPLE [STEPS]]`; steps are the model's own by default.
"""

import io
import re
import shutil
import subprocess
import sys
from pathlib import Path

from PIL import Image
from playwright.sync_api import Page, sync_playwright

ROOT = Path(__file__).parent.parent
OUT = ROOT / "docs" / "images" / "page.jpg"
WIDTH, HEIGHT = 1200, 1095
PATIENCE_MS = 1_800_000
OPENED = 5  # the tile at d = 1.25
QUALITY = 86


def main() -> None:
    """Take the picture."""
    sample = sys.argv[1] if len(sys.argv) > 1 else "astronaut.png"
    steps = sys.argv[2] if len(sys.argv) > 2 else ""  # noqa: PLR2004  the second argument
    serving = subprocess.Popen(
        [sys.executable, "-m", "cli.main", "serve", "--port", "0"],
        cwd=ROOT,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        url = _address(serving)
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(
                executable_path=shutil.which("chromium"), args=["--no-sandbox", "--disable-gpu"]
            )
            page = browser.new_page(viewport={"width": WIDTH, "height": HEIGHT}, reduced_motion="reduce")
            page.set_default_timeout(PATIENCE_MS)
            page.goto(url)
            _make_strip(page, sample, steps)
            picture = page.screenshot()
            browser.close()
    finally:
        serving.terminate()
        serving.wait(60)
    with Image.open(io.BytesIO(picture)) as image:
        image.convert("RGB").save(OUT, quality=QUALITY, optimize=True)
    print(f"{OUT.relative_to(ROOT)}: {OUT.stat().st_size // 1000} kB")


def _address(serving: subprocess.Popen[str]) -> str:
    for line in serving.stderr or ():
        if match := re.search(r"ready at (http://\S+)", line):
            return match[1]
    raise SystemExit("face-anon serve did not become ready")


def _make_strip(page: Page, sample: str, steps: str) -> None:
    page.locator(f"#photo-samples button:has(img[src$='{sample}'])").click()
    page.locator("#more").evaluate("more => { more.open = true; }")
    page.locator("#steps").fill(steps)
    page.locator("#more").evaluate("more => { more.open = false; }")
    page.locator("#seed").fill("3")
    page.locator("#strip-d").click()
    page.locator("#stop").wait_for()
    page.locator("#go").wait_for()
    page.locator(f".tile:nth-child({OPENED + 1}) button").click()
    page.locator("#show-faces").click()
    page.evaluate("scrollTo(0, 0)")
    page.mouse.move(0, 0)


if __name__ == "__main__":
    main()
