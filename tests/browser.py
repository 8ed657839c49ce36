"""Pages in headless Chromium, where there is one."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

AXE = Path(__file__).resolve().parents[1] / "node_modules/axe-core/axe.min.js"


@contextmanager
def chromium() -> Iterator[Any]:
    """A browser; without Playwright or Chromium the test is skipped."""
    sync_api = pytest.importorskip("playwright.sync_api", reason="needs playwright (pip install playwright)")
    found = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if not found:
        pytest.skip("needs an installed Chromium")
    with sync_api.sync_playwright() as play:
        browser = play.chromium.launch(executable_path=found, args=["--no-sandbox"])
        yield browser
        browser.close()


def open_page(browser: Any, address: str, width: int = 1200, scheme: str = "light", offline: bool = False) -> Any:
    """A page whose ``said`` collects what the console says."""
    page = browser.new_page(viewport={"width": width, "height": 800}, color_scheme=scheme, offline=offline)
    page.set_default_timeout(120_000)
    page.said = []
    page.on("console", lambda message: page.said.append(message.text))
    page.on("pageerror", lambda error: page.said.append(str(error)))
    page.goto(address)
    return page


def serious_findings(page: Any) -> list[Any]:
    """What axe-core finds that is serious; without axe-core the test is skipped."""
    if not AXE.is_file():
        pytest.skip("needs axe-core in the checkout (npm install --no-save axe-core)")
    page.evaluate(AXE.read_text(encoding="utf-8"))
    found = page.evaluate("axe.run().then(result => result.violations.map(v => [v.impact, v.id, v.nodes[0].html]))")
    return [violation for violation in found if violation[0] in ("serious", "critical")]
