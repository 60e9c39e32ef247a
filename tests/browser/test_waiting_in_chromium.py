"""The pages of rollouts and the quarantine in a real browser: a person decides with mouse and keyboard."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from perennial.domain.origin import SOURCE_CAP
from perennial.domain.words import RolloutState
from tests.browser.test_pages_in_chromium import _complaints
from tests.browser.test_pages_in_chromium import browser as browser
from tests.browser.test_pages_in_chromium import site as site
from tests.pages_world import PagesWorld
from tests.waiting_world import TASK, hold, judged_canary, make_waiting_world, validated
from tests.xss_payloads import PAYLOADS

pytestmark = [pytest.mark.browser, pytest.mark.req("J50", "J110")]


@pytest.fixture(scope="module")
def world() -> PagesWorld:
    made = make_waiting_world()
    made.ports.models.align_aliases = lambda *_, **__: True  # type: ignore[method-assign, assignment]
    judged_canary(made)
    hold(made, PAYLOADS[:30], SOURCE_CAP)
    validated(made, broken=True, tasks=PAYLOADS[:20], note=PAYLOADS[2])
    return made


def _send(browser: Any, selector: str, words: str) -> None:
    from selenium.webdriver.common.by import By
    from selenium.webdriver.support.ui import WebDriverWait

    browser.find_element(By.CSS_SELECTOR, selector).send_keys(words)
    here = browser.find_element(By.CSS_SELECTOR, "main")
    browser.find_element(By.CSS_SELECTOR, selector).submit()
    WebDriverWait(browser, 30).until(lambda _: _gone(here))


def _gone(element: Any) -> bool:
    from selenium.common.exceptions import StaleElementReferenceException

    try:
        return not element.is_enabled()
    except StaleElementReferenceException:
        return True


def test_rows_are_ticked_and_released(browser: Any, site: str, world: PagesWorld, tmp_path: Path) -> None:
    from selenium.webdriver.common.by import By
    from selenium.webdriver.support.ui import WebDriverWait

    _complaints(browser)
    browser.get(f"{site}/perennial/quarantine?agent=scout&state=held&task={TASK}&code={SOURCE_CAP}")
    browser.save_screenshot(str(tmp_path / "quarantine.png"))
    boxes = browser.find_elements(By.CSS_SELECTOR, "input[type=checkbox]")
    assert len(boxes) == 30
    for box in boxes[:2]:
        box.click()
    browser.find_element(By.ID, "rows-reason").send_keys("looked at them")
    browser.find_element(By.XPATH, "//button[text()='Release chosen']").click()
    WebDriverWait(browser, 30).until(lambda page: "said=released" in page.current_url)
    assert world.buffer.counts("scout")[TASK, "held"] == 28
    assert "looked at them" in browser.find_element(By.CSS_SELECTOR, "main").text
    assert browser.title != "owned"
    assert _complaints(browser) == []


def test_a_candidate_is_aborted_with_a_reason(browser: Any, site: str, world: PagesWorld) -> None:
    from selenium.webdriver.common.by import By

    browser.get(f"{site}/perennial/rollout?agent=scout")
    assert browser.find_elements(By.CSS_SELECTOR, "svg.chart")
    _send(browser, "#abort-reason", "wrong about sports")
    row = world.rollouts.latest("scout")
    assert row is not None
    assert (row.state, row.reason) == (RolloutState.REVERTED, "aborted by operator: wrong about sports")
    assert "out of traffic" in browser.find_element(By.CSS_SELECTOR, "main").text
    assert _complaints(browser) == []


def test_validations_hold_no_code_whatever_their_tasks_are_called(browser: Any, site: str, world: PagesWorld) -> None:
    from selenium.webdriver.common.by import By

    job = world.ledger.recent_validations("scout", 1)[0].job_id
    for address in ("/validation", "/validation?agent=scout", f"/validation?agent=scout&job={job}"):
        browser.get(f"{site}/perennial{address}")
        assert browser.title.endswith("Perennial")
        assert not browser.find_elements(By.CSS_SELECTOR, "main img, main iframe, main [onerror], main [onload]")
    assert PAYLOADS[0] in browser.find_element(By.CSS_SELECTOR, "main").text
    assert _complaints(browser) == []
