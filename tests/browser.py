"""Debian's headless Chromium for tests of pages, with a record of every address that it asked for."""

from __future__ import annotations

import contextlib
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
needs_chromium = pytest.mark.skipif(
    not (CHROMIUM and DRIVER), reason="needs Chromium and its driver (apt-get install chromium chromium-driver)"
)


@contextlib.contextmanager
def browser(folder: Path, width: int = 1200, height: int = 1000) -> Iterator[Any]:
    """A browser with an empty profile in ``folder``."""
    from selenium import webdriver

    options = webdriver.ChromeOptions()
    options.binary_location = str(CHROMIUM)
    quiet = ["--disable-quic", "--no-first-run", "--disable-background-networking", "--disable-component-update"]
    plain = ["--headless=new", "--no-sandbox", "--disable-gpu", "--disable-sync", "--disable-dev-shm-usage"]
    for word in [*plain, *quiet, f"--window-size={width},{height}", f"--user-data-dir={folder / 'profile'}"]:
        options.add_argument(word)
    options.set_capability("goog:loggingPrefs", {"performance": "ALL", "browser": "ALL"})
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(str(DRIVER)))
    try:
        yield driver
    finally:
        driver.quit()


def asked(driver: Any) -> list[str]:
    """Every address that the page has asked for since the last call."""
    events = [json.loads(entry["message"])["message"] for entry in driver.get_log("performance")]
    return [each["params"]["request"]["url"] for each in events if each["method"] == "Network.requestWillBeSent"]


def elsewhere(addresses: list[str]) -> list[str]:
    """Those that lead away from this machine."""
    own = ("http://127.0.0.1:", "http://localhost:", "data:", "blob:", "chrome:", "about:")
    return [address for address in addresses if not address.startswith(own)]
