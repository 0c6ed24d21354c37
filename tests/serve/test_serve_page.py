"""The playground by keyboard, in a window as wide as a telephone."""

import shutil
import sys
import time

import pytest
from serve_server import PATIENCE, Server

from animatediff_turbo.headless.tiny import score
from animatediff_turbo.video.decode import decode

sync_api = pytest.importorskip("playwright.sync_api")


@pytest.fixture(scope="module")
def page():
    with sync_api.sync_playwright() as playwright:
        try:
            own = shutil.which("chromium") or shutil.which("google-chrome")
            browser = playwright.chromium.launch(executable_path=own)
        except sync_api.Error as error:
            pytest.skip(f"no Chromium: {str(error).strip().splitlines()[0]}")
        opened = browser.new_page(viewport={"width": 360, "height": 740})
        opened.faults = []
        opened.on("console", lambda message: opened.faults.append(message.text) if message.type == "error" else None)
        opened.on("pageerror", lambda error: opened.faults.append(str(error)))
        yield opened
        browser.close()


@pytest.fixture(scope="module")
def real(tmp_path_factory):
    """With the tiny model."""
    folder = tmp_path_factory.mktemp("real")
    running = Server(folder, [sys.executable, "-m", "animatediff_turbo", "serve", "--port", "0", "--folder", str(folder / "server"), "--device", "cpu"])
    running.until_logged("is ready")
    yield running
    running.stop()


def focused(page):
    return page.evaluate("document.activeElement.id")


def until(page, condition):
    """wait_for_function is forbidden by the page's policy."""
    deadline = time.monotonic() + PATIENCE
    while not page.evaluate(condition):
        assert time.monotonic() < deadline, page.text_content("#state")
        page.wait_for_timeout(50)


def tab_to(page, id):
    for _ in range(40):
        if focused(page) == id:
            return
        page.keyboard.press("Tab")
    raise AssertionError(f"Tab does not lead to {id}")


def ask_by_keyboard(page, address, prompt, seed):
    page.goto(address)
    page.wait_for_selector("#prompt")
    for id, text in (("prompt", prompt), ("seed", seed)):
        tab_to(page, id)
        page.keyboard.type(text)
    tab_to(page, "generate")
    page.keyboard.press("Enter")


def test_a_clip_is_made_by_keyboard_alone(server, page):
    ask_by_keyboard(page, server.address, "a boat <b>'\"", "77")
    assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
    page.wait_for_selector("#result:not([hidden])")
    assert page.text_content("#shown-seed") == "77" and page.text_content("#state") == "Done"
    link = page.get_attribute("#download", "href")
    assert link.startswith("/files/made-") and server.client.get(link).content == b"video 77"
    assert page.query_selector("b") is None
    assert '"seed": 77' in page.text_content("#curl") and "/run/fal-ai/" in page.text_content("#curl") and "fal_client.subscribe" in page.text_content("#python")
    assert [fault for fault in page.faults if "Security Policy" in fault] == []
    assert page.evaluate("[...document.querySelectorAll('input, select, textarea')].every(each => each.labels.length || each.getAttribute('aria-label'))")


def test_what_is_wrong_is_said_and_a_job_can_be_cancelled(server, page):
    (server.notes / "release").unlink(missing_ok=True)
    page.goto(server.address)
    page.wait_for_selector("#prompt")
    page.fill("#prompt", "hold")
    page.click("#generate")
    page.wait_for_selector("#cancel:not([hidden])")
    sync_api.expect(page.locator("#state")).to_contain_text("Step 1 of 2", timeout=30_000)
    page.click("#cancel")
    sync_api.expect(page.locator("#state")).to_contain_text("The job was cancelled.", timeout=30_000)


def test_a_real_clip_is_watched_and_downloaded_and_goes_back_in_without_a_word_in_the_console(real, page, tmp_path):
    page.faults.clear()
    ask_by_keyboard(page, real.address, "a red circle moving right on a black background", "3")
    until(page, "document.querySelector('#video').currentTime > 0")
    assert page.evaluate("[document.querySelector('#video').videoWidth, document.querySelector('#video').error]") == [128, None]
    with page.expect_download() as downloading:
        tab_to(page, "download")
        page.keyboard.press("Enter")
    downloading.value.save_as(tmp_path / "clip.mp4")
    frames = decode(tmp_path / "clip.mp4").frames
    found = score.judge(frames)
    assert (len(frames), found.colour, found.direction, found.shape) == (16, "red", "right", "circle")
    page.screenshot(path=tmp_path / "watched.png", full_page=True)
    page.select_option("#endpoint", label="video-to-video")
    page.set_input_files("#video_url", tmp_path / "clip.mp4")
    page.fill("#prompt", "a blue circle moving right on a black background")
    page.fill("#strength", "0.9")
    page.fill("#seed", "3")
    page.click("#generate")
    sync_api.expect(page.locator("#state")).to_have_text("Done", timeout=60_000)
    again = real.client.get(page.get_attribute("#download", "href")).content
    (tmp_path / "again.mp4").write_bytes(again)
    assert score.judge(decode(tmp_path / "again.mp4").frames).colour == "blue"
    assert page.faults == [] and page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
