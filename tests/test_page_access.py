"""The page for everybody: by keyboard alone, on a phone, read out, in light and in dark."""

import re
from collections.abc import Iterator
from typing import Literal

import httpx
import numpy as np
import pytest
from browsing import (
    choose_sample,
    chromium,
    overflow,
    seen,
    seen_around,
    set_options,
    visit,
    wait_for_result,
)
from conftest import Running, wait_for_end
from playwright.sync_api import Browser, Page, expect

CONTRASTS = """() => {
  const linear = (value) => (value <= 0.04045 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4);
  const light = (colour) =>
    [0.2126, 0.7152, 0.0722].reduce((sum, weight, i) => sum + weight * linear(colour[i] / 255), 0.05);
  const over = (text, ground) => {
    const [red, green, blue, alpha = 1] = text.match(/[\\d.]+/g).map(Number);
    return [red, green, blue].map((value, i) => alpha * value + (1 - alpha) * ground[i]);
  };
  const colour = (element, name) => getComputedStyle(element)[name];
  const ground = (element) =>
    element ? over(colour(element, "backgroundColor"), ground(element.parentElement)) : [255, 255, 255];
  const isText = (node) => node.nodeType === Node.TEXT_NODE && node.data.trim();
  return [...document.querySelectorAll("body *")]
    .filter((element) => element.checkVisibility() && [...element.childNodes].some(isText))
    .filter((element) => colour(element, "clipPath") === "none" && !element.closest(":disabled"))
    .map((element) => {
      const behind = ground(element);
      const two = [light(over(colour(element, "color"), behind)), light(behind)];
      return [element.textContent.trim(), Math.max(...two) / Math.min(...two)];
    });
}"""
"""Each text that is seen, with the contrast to its ground (WCAG 2.2, 1.4.3)."""


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Share one Chromium; each test has a profile of its own."""
    with chromium() as running:
        yield running


def tab_to(page: Page, selector: str, *, back: bool = False) -> None:
    """Press Tab until an element has the focus, and that can be seen."""
    for _ in range(60):
        page.keyboard.press("Shift+Tab" if back else "Tab")
        if page.evaluate("selector => document.activeElement.matches(selector)", selector):
            return
    raise AssertionError(f"Tab does not reach {selector}")


def test_the_keyboard_is_enough_for_the_way(browser: Browser, served: Running, api: httpx.Client) -> None:
    """Choose, set everything, begin and cancel by Tab, Enter, Space and arrows; the focus never gets lost."""
    with visit(browser, served.url) as page:
        page.on("filechooser", lambda _: None)  # from now on they do not reach the screen
        tab_to(page, "#photo-file")
        with page.expect_file_chooser():
            page.keyboard.press("Enter")
        tab_to(page, "#photo-samples li:nth-child(3) button")
        page.keyboard.press("Enter")
        page.locator("#view").wait_for()
        assert page.evaluate("document.activeElement.id") == "photo-change"
        tab_to(page, "[name=kind]")
        page.keyboard.press("ArrowRight")
        expect(page.locator("#source-field")).to_be_visible()
        page.keyboard.press("ArrowLeft")
        tab_to(page, "#d")
        page.keyboard.press("ArrowRight")
        expect(page.locator("#d-words")).to_contain_text("Recommended")
        for _ in range(6):
            page.keyboard.press("ArrowRight")
        expect(page.locator("#d-words")).to_contain_text("Above 1.5")
        page.keyboard.press("Home")
        tab_to(page, "#roll")
        page.keyboard.press("Space")
        seed = page.locator("#seed").input_value()
        assert seed.isdigit()
        tab_to(page, "summary")
        page.keyboard.press("Enter")
        tab_to(page, "#steps")
        page.keyboard.type("300")
        tab_to(page, "#go")
        with page.expect_response("**/anonymize") as answer:
            page.keyboard.press("Enter")
        job = answer.value.json()
        assert (job["parameters"]["d"], job["parameters"]["seed"]) == (0, int(seed))
        assert page.evaluate("document.activeElement.id") == "stop"
        page.keyboard.press("Enter")
        page.locator("#go").wait_for()
        assert wait_for_end(api, job)["status"] == "canceled"
        assert page.evaluate("document.activeElement.id") == "go"


def test_the_keyboard_is_enough_for_the_result(browser: Browser, served: Running) -> None:
    """Compare, see the faces, look closer, download and erase by Tab, Enter, Space and arrows."""
    with visit(browser, served.url) as page:
        choose_sample(page, "portrait-1.png")
        set_options(page, steps="1")
        page.keyboard.press("Enter")
        wait_for_result(page)
        tab_to(page, "#compare", back=True)
        canvas = page.locator("#canvas")
        halves = seen(canvas)
        begun = int(page.locator("#compare").input_value())
        for _ in range(10):
            page.keyboard.press("ArrowRight")
        words = f"{begun + 10} % before, {90 - begun} % after"
        assert page.locator("#compare").get_attribute("aria-valuetext") == words
        assert np.abs(halves.astype(int) - seen(canvas)).max() > 50
        tab_to(page, "#show-faces")
        page.keyboard.press("Space")
        expect(page.locator(".box")).to_be_visible()
        tab_to(page, ".look")
        page.keyboard.press("Enter")
        expect(page.locator(".look")).to_have_attribute("aria-pressed", "true")
        tab_to(page, "#download", back=True)
        with page.expect_download():
            page.keyboard.press("Enter")
        tab_to(page, "#erase", back=True)
        page.keyboard.press("Enter")
        expect(page.locator("#tray .note").last).to_have_text("Erased")
        assert page.evaluate("document.activeElement.id") == "photo-change"


def test_every_control_has_a_name_and_shows_its_focus(browser: Browser, served: Running) -> None:
    """What a screen reader would say is never empty, and a focused control looks different."""
    with visit(browser, served.url) as page:
        choose_sample(page, "portrait-1.png")
        page.locator("#more").evaluate("more => { more.open = true; }")
        tree = page.locator("body").aria_snapshot()
        nameless = re.findall(
            r"^\s*- (?:button|link|textbox|slider|combobox|radio|spinbutton|img):?$", tree, re.MULTILINE
        )
        assert nameless == []
        for name in ("photo-change", "d", "seed", "roll", "steps", "sampler", "go", "strip-d"):
            control = page.locator(f"#{name}")
            control.scroll_into_view_if_needed()
            plain = seen_around(control)
            control.focus()
            page.keyboard.press("Shift+Tab")
            page.keyboard.press("Tab")
            assert page.evaluate("document.activeElement.id") == name
            assert np.abs(plain.astype(int) - seen_around(control)).max() > 60, name
            page.evaluate("document.activeElement.blur()")


def test_a_phone_has_room_for_it(browser: Browser, served: Running) -> None:
    """At 360 pixels nothing lies beyond the edge, buttons fit fingers, and a tap moves the divider."""
    phone = {"viewport": {"width": 360, "height": 740}, "has_touch": True, "is_mobile": True}
    with visit(browser, served.url, device_scale_factor=2, **phone) as page:
        assert overflow(page) == 0
        page.locator("#photo-samples button").nth(1).tap()
        set_options(page, steps="1", seed="9223372036854775807")
        page.get_by_role("radio", name="Swap").tap()
        assert overflow(page) == 0
        page.get_by_role("radio", name="Anonymize").tap()
        page.locator("#go").tap()
        wait_for_result(page)
        assert overflow(page) == 0
        expect(page.locator("#faces > li")).to_have_count(3)
        canvas = page.locator("#canvas")
        expect(canvas).to_be_in_viewport()
        place = canvas.bounding_box()
        assert place
        page.touchscreen.tap(place["x"] + place["width"] * 0.8, place["y"] + 20)
        assert page.locator("#compare").input_value() == "80"
        for button in page.locator("button:visible, a.button:visible, label.button:visible").all():
            size = button.bounding_box()
            assert size
            assert min(size["width"], size["height"]) >= 28, button.inner_text()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_stands_out_from_its_ground(
    browser: Browser, served: Running, scheme: Literal["light", "dark"]
) -> None:
    """In light and in dark: WCAG's 4.5 to 1 for each text that is seen (AA)."""
    with visit(browser, served.url, color_scheme=scheme) as page:
        choose_sample(page, "portrait-1.png")
        page.locator("#go").click()
        page.locator("#stop").click()
        page.locator("#go").wait_for()
        contrasts = page.evaluate(CONTRASTS)
        assert len(contrasts) > 20
        assert [text for text, contrast in contrasts if contrast < 4.5] == []
        assert (seen(page.locator("header"))[1, 1].mean() > 200) == (scheme == "light")
