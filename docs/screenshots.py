"""Take the screenshots of the documentation from a running explorer.

    tramontana explore data/training.zarr data/era5.zarr --no-open
    python docs/screenshots.py http://localhost:5006/app

Needs Chromium and the `dev` extra; stores are named as in the README. Further words name single pictures.
"""

import sys
from pathlib import Path
from urllib.parse import urlencode

from playwright.sync_api import sync_playwright

IMAGES = Path(__file__).with_name("images")
WINTER, SUMMER = "2016-03-07T03:00", "2017-07-24T13:00"
NETWORKS = ("GAN (demo)", "LDM_res (demo)", "LDM_PDE (demo)")
"""Ticked in addition to those that are ticked at first."""
PICTURES: dict[str, tuple[dict[str, str], tuple[str, ...]]] = {
    "maps-light": ({"store": "training", "hour": WINTER}, NETWORKS),
    "maps-dark": ({"store": "training", "hour": SUMMER, "theme": "dark"}, NETWORKS),
    "difference": ({"store": "training", "hour": WINTER, "mode": "difference"}, NETWORKS),
    "swipe": ({"store": "training", "hour": SUMMER, "mode": "swipe"}, ()),
    "spectra": ({"store": "training", "hour": WINTER, "view": "spectra"}, NETWORKS),
    "flux": ({"store": "training", "hour": WINTER, "view": "flux"}, NETWORKS),
    "scores": ({"store": "training", "hour": WINTER, "view": "scores"}, NETWORKS),
    "hours": ({"store": "training", "hour": WINTER, "view": "hours"}, ()),
    "ensemble": ({"store": "training", "hour": WINTER, "view": "ensemble"}, ("LDM_res (demo)",)),
    "point": ({"store": "training", "hour": WINTER, "view": "point", "point": "11.35,46.5"}, NETWORKS),
    "about": ({"store": "training", "view": "about"}, ()),
    "era5": ({"store": "era5", "hour": "2022-06-18T12:00"}, ()),
}


def main(address: str, *names: str) -> None:
    IMAGES.mkdir(exist_ok=True)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path="/usr/bin/chromium", args=["--headless", "--no-sandbox", "--disable-gpu"]
        )
        for name in names or PICTURES:
            state, more = PICTURES[name]
            page = browser.new_page(viewport={"width": 1280, "height": 800})
            page.goto(f"{address}?{urlencode(state)}", timeout=120_000)
            for label in more:
                page.get_by_label(label, exact=True).check()
            if name == "ensemble":
                page.get_by_role("button", name="Sample 4 members").first.click()
                page.get_by_text("All 4 members of this hour are there.").wait_for(timeout=120_000)
            page.mouse.move(0, 0)
            page.wait_for_timeout(12_000)
            page.screenshot(path=IMAGES / f"{name}.png")
            page.close()
        browser.close()


if __name__ == "__main__":
    main(*sys.argv[1:])
