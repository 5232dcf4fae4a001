"""The page in headless Chromium: upload, record, compare, at a desk and on a phone."""

import contextlib
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

import qaudio
from tests.conftest import LABELS
from tests.support.browser import chromium
from tests.support.esc50 import SETTINGS

pytestmark = pytest.mark.browser
DESK, PHONE = 1280, 390


@pytest.fixture(scope="module")
def entries(tmp_path_factory):
    """Two entries of different sizes."""
    folder = tmp_path_factory.mktemp("zoo")
    made = []
    for arch in ("qcnn6_006", "cnn6_013"):
        settings = SETTINGS | ({"kind": "delta"} if arch.startswith("q") else {})
        with torch.random.fork_rng():
            torch.manual_seed(0)
            model = qaudio.create_model(arch, num_classes=len(LABELS), frontend=settings)
        model.labels = list(LABELS)
        made.append(qaudio.save(model, folder / f"{arch}.made", license="cc0-1.0"))
    return made


@pytest.fixture(scope="module")
def address(entries):
    """The command as a user runs it; what it prints ends with the page's address."""
    process = subprocess.Popen(
        [sys.executable, "-m", "qaudio.cli", "demo", *map(str, entries), "--no-browser"],
        env=os.environ | {"PYTHONPATH": str(Path(qaudio.__file__).parents[1])},
        stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    line = process.stdout.readline()
    assert line.startswith("qaudio: http://127.0.0.1:"), line
    yield line.split()[1].rstrip(";")
    process.terminate()
    process.wait(20)


@pytest.fixture(scope="module")
def driver():
    """A browser with a made microphone that reaches nothing but this machine."""
    made = ("--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream")
    with chromium(*made) as driver:
        driver.set_page_load_timeout(180)
        yield driver


@pytest.fixture
def sound(tmp_path):
    path = tmp_path / "a.wav"
    soundfile.write(path, 0.1 * np.random.default_rng(0).standard_normal(16000), 8000)
    return path


class Page:
    def __init__(self, driver, address):
        self.driver, self.address = driver, address

    def open(self, width):
        self.driver.get_log("browser")
        self.driver.execute_cdp_cmd(
            "Emulation.setDeviceMetricsOverride",
            {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 600},
        )
        self.driver.get(self.address)
        self.wait(lambda: self.all("#sound input[type=file]"))

    def all(self, selector):
        return self.driver.find_elements("css selector", selector)

    def wait(self, what, seconds=120):
        from selenium.common.exceptions import StaleElementReferenceException

        end = time.monotonic() + seconds
        while time.monotonic() < end:
            with contextlib.suppress(StaleElementReferenceException):  # it was drawn again
                if found := what():
                    return found
            time.sleep(0.2)
        raise AssertionError(self.driver.find_element("css selector", "body").text)

    def text(self, selector):
        return "\n".join(element.text for element in self.all(selector))

    def answered(self, side="left"):
        """Whether one side shows classes and a picture."""
        pictures = self.all(f"#{side}-picture img")
        done = pictures and self.driver.execute_script(
            "return arguments[0].complete && arguments[0].naturalWidth", pictures[0]
        )
        return done and self.text(f"#{side}-classes")

    def errors(self):
        return [
            one["message"] for one in self.driver.get_log("browser") if one["level"] == "SEVERE"
        ]

    def is_too_wide(self):
        return self.driver.execute_script(
            "return document.documentElement.scrollWidth > document.documentElement.clientWidth + 1"
        )


@pytest.fixture
def page(driver, address):
    return Page(driver, address)


@pytest.mark.parametrize("width", [DESK, PHONE])
def test_upload_is_answered_by_both_entries(page, sound, width, entries):
    page.open(width)
    page.all("#sound input[type=file]")[0].send_keys(str(sound))
    for side, entry in zip(("left", "right"), entries, strict=True):
        classes = page.wait(lambda side=side: page.answered(side))
        expected = qaudio.predict(qaudio.load(entry), sound, top_k=1)[0]
        assert expected.label.replace("_", " ") in classes
        assert f"{expected.probability:.0%}" in classes
        said = page.text(f"#{side}-facts")
        assert entry.name in said
        assert "MB" in said and "ms for these 2.0 s" in said
        assert "strongest from" in page.text(f"#{side}-words")
        (picture,) = page.all(f"#{side}-picture img")
        assert picture.get_attribute("alt").startswith("Spectrogram, heat map")
    left, right = (page.all(f"#{side}-picture img")[0].rect for side in ("left", "right"))
    assert (left["y"] == right["y"]) == (width == DESK)  # side by side, or one below the other
    assert not page.is_too_wide()
    assert page.errors() == []
    if folder := os.environ.get("QAUDIO_SCREENSHOTS"):
        height = page.driver.execute_script("return document.documentElement.scrollHeight")
        page.driver.execute_cdp_cmd(
            "Emulation.setDeviceMetricsOverride",
            {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600},
        )
        page.driver.save_screenshot(str(Path(folder) / f"demo_{width}.png"))


def test_recording_is_answered(page):
    page.open(PHONE)
    page.wait(lambda: page.all("#sound button[aria-label='Record audio']"))[0].click()
    page.wait(lambda: page.all("#sound .record-button"))[0].click()
    time.sleep(2)
    page.wait(lambda: [b for b in page.all("#sound .stop-button") if b.is_displayed()])[0].click()
    page.wait(lambda: page.answered("left"))
    assert page.errors() == []


def test_keyboard_alone_runs_the_example(page):
    from selenium.webdriver.common.action_chains import ActionChains
    from selenium.webdriver.common.keys import Keys

    page.open(DESK)
    page.wait(lambda: page.all("#example"))
    for _ in range(40):
        ActionChains(page.driver).send_keys(Keys.TAB).perform()
        if page.driver.switch_to.active_element.get_attribute("id") == "example":
            break
    else:
        raise AssertionError("the example's button is not reached by Tab")
    ActionChains(page.driver).send_keys(Keys.ENTER).perform()
    assert page.wait(lambda: page.answered("left"))
    assert page.errors() == []


def test_choosing_one_entry_takes_the_other_away(page, sound):
    from selenium.webdriver.common.keys import Keys

    page.open(DESK)
    page.all("#sound input[type=file]")[0].send_keys(str(sound))
    page.wait(lambda: page.answered("right"))
    (field,) = page.all("#right input")
    field.click()
    field.send_keys(Keys.CONTROL, "a")
    field.send_keys("none", Keys.ENTER)
    page.wait(lambda: not any(e.is_displayed() for e in page.all("#right-picture")))
    assert page.answered("left")


def test_a_file_that_is_no_sound_is_said_in_one_line(page, tmp_path):
    page.open(DESK)
    path = tmp_path / "bad.wav"
    path.write_text("not a sound")
    page.all("#sound input[type=file]")[0].send_keys(str(path))
    page.wait(lambda: "bad.wav: not a readable sound file" in page.text(".toast-body"))
