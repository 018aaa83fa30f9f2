"""A real Chromium, and a tab of it that tells of everything that should not have happened."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from playwright.sync_api import Browser, ConsoleMessage, Locator, Page, Request, Route, expect, sync_playwright

from tests.support import DEADLINE

# It must ask nobody for anything: neither pages nor its own maker.
ARGUMENTS = """
--no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking --disable-component-update
--disable-sync
"""
LISTED = {"object": "list", "data": [{"id": "m", "object": "model", "created": 0, "owned_by": "test"}]}


@contextmanager
def chromium() -> Iterator[Browser]:
    """The machine's own browser; without one the tests that need it are skipped, but not where CI counts on them."""
    path = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if path is None:
        say = pytest.fail if os.environ.get("CI") == "true" else pytest.skip
        say("there is no chromium here; on Debian: apt-get install chromium")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=ARGUMENTS.split())
        yield browser
        browser.close()


class Tab:
    """The console in a tab. `told`: what the browser complained of; `foreign`: addresses elsewhere that were asked."""

    def __init__(self, browser: Browser, url: str, *, width: int = 1280, height: int = 900, **context: Any) -> None:
        self.url = url
        self.context = browser.new_context(viewport={"width": width, "height": height}, **context)
        self.context.set_default_timeout(DEADLINE * 1000)
        self.told: list[str] = []
        self.foreign: list[str] = []
        self.page = self.open()

    def open(self) -> Page:
        """Another tab of the same browser."""
        page = self.context.new_page()
        page.on("console", self._heard)
        page.on("pageerror", lambda error: self.told.append(str(error)))
        page.on("request", self._asked)
        return page

    def _heard(self, message: ConsoleMessage) -> None:
        if message.type in ("error", "warning"):
            self.told.append(message.text)

    def _asked(self, request: Request) -> None:
        if not request.url.startswith(f"{self.url}/"):
            self.foreign.append(request.url)

    def visit(self) -> "Tab":
        self.page.goto(self.url + "/")
        expect(self.page.locator("#version")).not_to_have_text("Penstock")  # the proxy has said what it is
        return self

    def lists_models(self) -> "Tab":
        """For providers that answer nothing but chat completions."""
        return self.answers("/v1/models", json=LISTED)

    def answers(self, path: str, **answer: Any) -> "Tab":
        """From now on this instead of the proxy, as Route.fulfill takes it."""

        def fulfilled(route: Route) -> None:
            route.fulfill(**answer)

        self.page.route(f"{self.url}{path}", fulfilled)
        return self

    def close(self) -> None:
        self.context.close()

    def the(self, selector: str) -> Locator:
        return self.page.locator(selector)

    @property
    def answer(self) -> Locator:
        """The newest answer."""
        return self.page.locator(".turn.answer").last

    @property
    def badge(self) -> Locator:
        """How the newest answer came to be."""
        return self.answer.locator("header .badge")

    @property
    def problem(self) -> Locator:
        return self.answer.locator(".problem")

    def ask(self, text: str, model: str = "") -> None:
        if model:
            self.page.fill("#model", model)
        self.page.fill("#message", text)
        self.page.click("#send")

    def enter_key(self, key: str, kind: str = "asking") -> None:
        self.page.fill(f"#{kind}-key-field", key)
        self.page.press(f"#{kind}-key-field", "Enter")

    def press(self, name: str) -> None:
        self.answer.get_by_role("button", name=name, exact=True).click()
