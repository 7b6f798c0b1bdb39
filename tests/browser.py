"""A real browser, without a network: Debian's chromium."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager

from playwright.sync_api import Page, sync_playwright

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
# The contrast of what is written on what is behind it (WCAG 2, 1.4.3: at least 4.5).
CONTRAST = """selector => {
    const light = text => { const [r, g, b] = text.match(/[\\d.]+/g).slice(0, 3).map(v => { v /= 255; return v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4; }); return 0.2126 * r + 0.7152 * g + 0.0722 * b; };
    const [a, b] = [light(getComputedStyle(document.querySelector(selector)).color), light(getComputedStyle(document.body).backgroundColor)];
    return (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
}"""  # noqa: E501
# Whether a canvas has more than one colour.
DRAWN = """canvas => {
    const { data } = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
    for (let i = 4; i < data.length; i += 4) if (data[i] !== data[0] || data[i + 3] !== data[3]) return true;
    return false;
}"""


@contextmanager
def opened(url: str, width: int = 1240, scheme: str = "light", offline: bool = True) -> Iterator[tuple[Page, list[str]]]:
    """A page, and what its console and its network said that should not have been."""
    said: list[str] = []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        try:
            context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme, offline=offline)
            context.set_default_timeout(0)  # pytest's own limit is the one against hangs
            page = context.new_page()
            page.on("console", lambda message: said.append(f"{message.type}: {message.text}"))
            page.on("pageerror", lambda wrong: said.append(f"error: {wrong}"))
            page.on(
                "request", lambda request: None if request.url.startswith((url, "data:", "blob:")) else said.append(request.url)
            )
            page.goto(url)
            yield page, said
        finally:
            browser.close()


@contextmanager
def report(path, **more) -> Iterator[tuple[Page, list[str]]]:
    """A report from the disk, its charts drawn."""
    with opened(path.resolve().as_uri(), **more) as (page, said):
        page.wait_for_function("document.body.dataset.drawn")
        yield page, said
