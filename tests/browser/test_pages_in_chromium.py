"""The pages in a real browser, framed as Airflow frames them: forms, sorting, theme, policy, attack texts, and no script at all."""

from __future__ import annotations

import shutil
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import uvicorn
from fastapi import FastAPI
from starlette.responses import HTMLResponse

from tests.pages_world import TOKENS, PagesWorld, Role, make_pages_world
from tests.xss_payloads import PAYLOADS

pytestmark = [pytest.mark.browser, pytest.mark.req("J50")]
DRIVER, CHROMIUM = shutil.which("chromedriver"), shutil.which("chromium") or shutil.which("google-chrome")
# as Airflow 3.3 frames a plugin's page, beside its own choice of theme
AIRFLOW = """<!doctype html><html class="{theme}"><body><iframe id="page" width="1300" height="900" src="/perennial{path}"
sandbox="allow-scripts allow-same-origin allow-forms allow-downloads"></iframe></body></html>"""


@pytest.fixture(scope="module")
def world() -> PagesWorld:
    made = make_pages_world(broken=PAYLOADS[0], owner="<img src=x onerror=document.title='owned'>")
    texts = [f"{payload} number {number}" for number, payload in enumerate(PAYLOADS)]
    made.release("desk", "1.0.0", texts=texts, note="<script>document.title='owned'</script>", requested_by=PAYLOADS[1])
    made.serve("desk", "1.0.0", reason="<svg onload=document.title='owned'>")
    return made


@pytest.fixture(scope="module")
def site(world: PagesWorld) -> Iterator[str]:
    """The app below Airflow's prefix on a free port, with a page that frames it."""
    outer = FastAPI()
    outer.mount("/perennial", world.app())

    @outer.get("/airflow/{theme}/{page}")
    def framing(theme: str, page: str) -> HTMLResponse:
        return HTMLResponse(AIRFLOW.format(theme=theme, path=f"/{page}"))

    listening = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(outer, log_level="error"))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.02)
    yield f"http://127.0.0.1:{listening.getsockname()[1]}"
    server.should_exit = True
    thread.join(10)


@pytest.fixture(scope="module")
def browser(site: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """Headless Chromium, signed in as an operator."""
    if not DRIVER or not CHROMIUM:
        pytest.skip("needs chromium and chromedriver")
    from selenium import webdriver
    from selenium.webdriver.chrome.options import Options
    from selenium.webdriver.chrome.service import Service

    options = Options()
    options.binary_location = CHROMIUM
    for flag in (
        "--headless=new",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-dev-shm-usage",
        "--window-size=1400,1000",
    ):
        options.add_argument(flag)
    options.add_argument(f"--user-data-dir={tmp_path_factory.mktemp('chromium')}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    found = webdriver.Chrome(options=options, service=Service(DRIVER))
    found.set_page_load_timeout(60)
    found.get(f"{site}/perennial/healthz")
    found.add_cookie({"name": "_token", "value": TOKENS[Role.OPERATOR], "path": "/"})
    yield found
    found.quit()


def _complaints(browser: Any) -> list[str]:
    """What the console says, but for what is Airflow's own: no icon here, and the way in which it frames."""
    told = [str(one["message"]) for one in browser.get_log("browser")]
    return [one for one in told if "favicon" not in one and "can escape its sandboxing" not in one]


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_the_frame_takes_airflows_theme_and_its_policy_holds(
    browser: Any, site: str, theme: str, tmp_path: Path
) -> None:
    _complaints(browser)
    browser.get(f"{site}/airflow/{theme}/fleet")
    browser.switch_to.frame("page")
    assert browser.execute_script("return document.documentElement.dataset.theme") == theme
    ground = browser.execute_script("return getComputedStyle(document.body).backgroundColor")
    assert ground == {"light": "rgb(246, 247, 249)", "dark": "rgb(15, 20, 26)"}[theme]
    browser.switch_to.default_content()
    browser.save_screenshot(str(tmp_path / f"fleet-{theme}.png"))
    assert (tmp_path / f"fleet-{theme}.png").stat().st_size > 10_000
    assert _complaints(browser) == []


def test_a_person_pauses_an_agent_in_the_frame_by_keyboard(browser: Any, site: str, world: PagesWorld) -> None:
    from selenium.webdriver.common.by import By
    from selenium.webdriver.common.keys import Keys

    browser.get(f"{site}/airflow/light/fleet")
    browser.switch_to.frame("page")
    switch = browser.find_element(By.XPATH, "//tr[.//a[text()='scout']]//summary")
    switch.send_keys(Keys.ENTER)
    field = browser.find_element(By.ID, "why-scout")
    field.send_keys("a holiday", Keys.ENTER)
    deadline = time.monotonic() + 30
    while "Trainings are paused" not in browser.page_source and time.monotonic() < deadline:
        time.sleep(0.1)
    assert "Trainings are paused" in browser.find_element(By.CSS_SELECTOR, "[role=status]").text
    assert world.dags.facts(["train_scout"])["train_scout"].paused
    assert (world.audit.entries("scout")[0].actor, world.audit.entries("scout")[0].action) == (
        "operator",
        "training_paused",
    )
    browser.switch_to.default_content()


def test_a_click_on_a_title_sorts(browser: Any, site: str) -> None:
    from selenium.webdriver.common.by import By

    browser.get(f"{site}/perennial/fleet")
    names = lambda: [one.text for one in browser.find_elements(By.CSS_SELECTOR, "tbody th[data-key] > a")]  # noqa: E731
    head = browser.find_element(By.XPATH, "//th[.//button[text()='Agent']]")
    assert names() == ["desk", "scout"]
    for order, expected in (("ascending", ["desk", "scout"]), ("descending", ["scout", "desk"])):
        head.find_element(By.TAG_NAME, "button").click()
        assert head.get_attribute("aria-sort") == order
        assert names() == expected


def test_a_link_to_mlflow_leaves_the_frame(browser: Any, site: str) -> None:
    from selenium.webdriver.common.by import By

    browser.get(f"{site}/airflow/light/version")
    browser.switch_to.frame("page")
    browser.find_element(By.LINK_TEXT, "scout").click()
    link = browser.find_element(By.LINK_TEXT, "Model in MLflow")
    here = browser.current_window_handle
    link.click()
    deadline = time.monotonic() + 30
    while len(browser.window_handles) < 2 and time.monotonic() < deadline:
        time.sleep(0.1)
    (other,) = set(browser.window_handles) - {here}
    browser.switch_to.window(other)
    assert "/airflow/" not in browser.current_url
    browser.close()
    browser.switch_to.window(here)


def test_attack_texts_do_nothing(browser: Any, site: str) -> None:
    from selenium.webdriver.common.by import By

    _complaints(browser)
    for path in ("/fleet", "/version?agent=desk", "/explain?agent=desk", "/version?agent=desk&version=%3Cscript%3E"):
        browser.get(f"{site}/perennial{path}")
        assert browser.title.endswith("· Perennial")
        assert (
            browser.find_elements(
                By.CSS_SELECTOR, "img, iframe, object, embed, style, [onclick], [onerror], [onload], [style]"
            )
            == []
        )
        assert len(browser.find_elements(By.TAG_NAME, "script")) == 1
    assert [one for one in _complaints(browser) if "404" not in one] == []


def test_without_a_script_everything_is_there(browser: Any, site: str) -> None:
    from selenium.webdriver.common.by import By

    browser.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": True})
    try:
        for path, words in (
            ("/fleet", "Next trigger"),
            ("/version?agent=scout", "Gate report"),
            ("/explain?agent=scout", "Answer"),
        ):
            browser.get(f"{site}/perennial{path}")
            assert words in browser.find_element(By.TAG_NAME, "main").text
            assert browser.find_elements(By.CSS_SELECTOR, "button.sort") == []
    finally:
        browser.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": False})
