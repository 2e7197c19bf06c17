"""Take the screenshots of the documentation from a running explorer.

    tramontana explore data/training.zarr data/era5.zarr --no-open
    python docs/screenshots.py http://localhost:5006/app

Needs Chromium and the `dev` extra; stores are named as in the README.
"""

import sys
from pathlib import Path
from urllib.parse import urlencode

from playwright.sync_api import sync_playwright

IMAGES = Path(__file__).with_name("images")
WINTER, SUMMER = "2016-03-07T06:00", "2017-07-24T13:00"
PICTURES = {
    "maps-light": {"store": "training", "hour": WINTER},
    "maps-dark": {"store": "training", "hour": SUMMER, "theme": "dark"},
    "difference": {"store": "training", "hour": WINTER, "mode": "difference"},
    "scores": {"store": "training", "hour": WINTER, "view": "scores"},
    "about": {"store": "training", "view": "about"},
    "era5": {"store": "era5", "hour": "2022-06-18T12:00"},
}


def main(address: str) -> None:
    IMAGES.mkdir(exist_ok=True)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path="/usr/bin/chromium", args=["--headless", "--no-sandbox", "--disable-gpu"]
        )
        for name, state in PICTURES.items():
            page = browser.new_page(viewport={"width": 1280, "height": 800})
            page.goto(f"{address}?{urlencode(state)}", timeout=120_000)
            page.wait_for_timeout(15_000)
            page.screenshot(path=IMAGES / f"{name}.png")
            page.close()
        browser.close()


if __name__ == "__main__":
    main(sys.argv[1])
