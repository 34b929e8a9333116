"""A headless Chromium for tests of pages, which records what a page logs and requests."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, sync_playwright

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")


def executable() -> str:
    """The browser of this machine.

    If there is none, the test fails, as what it promises would not be tested. Only in CI, whose machines are chosen
    elsewhere, is it skipped.
    """
    found = os.environ.get("EMTTA_TEST_BROWSER") or next(filter(None, map(shutil.which, NAMES)), None)
    if found is None:
        how = "no Chromium is installed (Debian: apt-get install chromium), nor named by EMTTA_TEST_BROWSER"
        if os.environ.get("CI"):
            pytest.skip(f"{how}; pages are not tried in a browser")
        pytest.fail(f"{how}; set CI=true to do without")
    return found


@contextmanager
def chromium() -> Iterator[Browser]:
    """Run the browser inside the `with` block."""
    path = executable()
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox", "--disable-gpu"])
        try:
            yield browser
        finally:
            browser.close()


@dataclass
class Seen:
    """An open page, with its console messages, and its requests for anything but itself."""

    page: Page
    complaints: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)

    def contrasts(self) -> list[tuple[float, float, str]]:
        """Contrast, font size and text of each visible text of the page (WCAG 2.2, 1.4.3)."""
        return [tuple(row) for row in self.page.evaluate(_CONTRASTS)]

    def texts(self, selector: str) -> list[str]:
        """The texts of the visible elements."""
        return [element.inner_text() for element in self.page.locator(selector).all() if element.is_visible()]


@contextmanager
def opened(browser: Browser, url: str, *, width: int = 1280, scheme: str = "light", **options: Any) -> Iterator[Seen]:
    """Open a page in its own window."""
    context = browser.new_context(viewport={"width": width, "height": 844}, color_scheme=scheme, **options)
    try:
        page = context.new_page()
        seen = Seen(page)
        page.on("console", lambda message: seen.complaints.append(f"{message.type}: {message.text}"))
        page.on("pageerror", lambda error: seen.complaints.append(str(error)))
        page.on("request", lambda request: seen.requests.append(request.url))
        page.goto(url)
        seen.requests.remove(url)
        yield seen
    finally:
        context.close()


def kept(name: str, folder: Path) -> Path:
    """Where to keep a picture of a page: in the folder EMTTA_TEST_ARTEFACTS, or in the test's own."""
    target = Path(os.environ.get("EMTTA_TEST_ARTEFACTS") or folder)
    target.mkdir(parents=True, exist_ok=True)
    return target / name


_CONTRASTS = """() => {
    const context = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
    const pixel = (colour) => {
        context.clearRect(0, 0, 1, 1);
        context.fillStyle = colour;
        context.fillRect(0, 0, 1, 1);
        return [...context.getImageData(0, 0, 1, 1).data];
    };
    const light = (rgb) => {
        const linear = (v) => (v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
        const [r, g, b] = rgb.slice(0, 3).map((v) => linear(v / 255));
        return 0.2126 * r + 0.7152 * g + 0.0722 * b;
    };
    const behind = (element) => {
        for (let at = element; at; at = at.parentElement) {
            const rgba = pixel(getComputedStyle(at).backgroundColor);
            if (rgba[3] > 230) return rgba;
        }
        return [255, 255, 255, 255];
    };
    const found = [];
    const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
    while (walker.nextNode()) {
        const text = walker.currentNode.textContent.trim();
        const element = walker.currentNode.parentElement;
        if (!text || !element.checkVisibility()) continue;
        if (["SCRIPT", "STYLE", "title", "desc"].includes(element.tagName)) continue;
        const style = getComputedStyle(element);
        const inSvg = element.namespaceURI.endsWith("svg");
        const [a, b] = [pixel(inSvg ? style.fill : style.color), behind(element)].map(light);
        found.push([(Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05), parseFloat(style.fontSize), text.slice(0, 40)]);
    }
    return found;
}"""
