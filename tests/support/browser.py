"""Debian's Chromium, driven by Playwright; nothing is downloaded.

Playwright keeps an event loop running in the thread that it is used in, where no test could then run
one of its own. So it has a thread to itself: `tab(lambda page: page.click("#verify"))`.
"""

import os
import shutil
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, TypeVar

import pytest
from playwright.sync_api import Browser, Page, sync_playwright

MISSING = "Chromium is not installed: apt-get install chromium"

T = TypeVar("T")


class Tab:
    """A page in a context of its own; what it is told to do is done in the browser's thread.

    `problems` are what the page logged or threw, `asked` the addresses that it asked for.
    """

    def __init__(self, worker: ThreadPoolExecutor, browser: Browser, options: dict[str, Any]) -> None:
        self._worker = worker
        self.problems: list[str] = []
        self.asked: list[str] = []
        self._page: Page = worker.submit(self._open, browser, options).result()

    def __call__(self, work: Callable[[Page], T]) -> T:
        return self._worker.submit(work, self._page).result()

    def close(self) -> None:
        self(lambda page: page.context.close())

    def _open(self, browser: Browser, options: dict[str, Any]) -> Page:
        page = browser.new_context(**options).new_page()
        page.on("pageerror", lambda error: self.problems.append(str(error)))
        page.on("console", lambda message: self.problems.append(message.text))
        page.on("request", lambda request: self.asked.append(request.url))
        return page


def chromium_path() -> str:
    """Return where Chromium is. Where it is not, fail in CI (`CI=true`), and skip elsewhere."""
    path = shutil.which("chromium")
    if path is None:
        if os.environ.get("CI") == "true":
            pytest.fail(f"{MISSING} (with CI=true the pages must be tested in a browser)")
        pytest.skip(MISSING)
    return path


@contextmanager
def chromium() -> Iterator[Callable[..., Tab]]:
    """Start Chromium and give what opens a tab in it; without it as `chromium_path`."""
    path = chromium_path()
    with ThreadPoolExecutor(max_workers=1, thread_name_prefix="browser") as worker:
        playwright = worker.submit(lambda: sync_playwright().start()).result()
        try:
            # In a container as root there are no namespaces to build Chromium's own sandbox of.
            options = {"executable_path": path, "args": ["--no-sandbox"]}
            launch = playwright.chromium.launch
            browser = worker.submit(lambda: launch(**options)).result()
            yield lambda **context: Tab(worker, browser, context)
            worker.submit(browser.close).result()
        finally:
            worker.submit(playwright.stop).result()
