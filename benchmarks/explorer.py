"""What a visitor of the explorer waits for, in a real browser on this machine.

    python -m benchmarks.explorer data/training.zarr

starts the server with the models that ship, opens the page in Chromium (1280 x 800) and prints a table:
seconds until the controls can be used and until the maps are drawn, on a server that has just started and
for a later visitor (median of several), and the same of a page that has little but as many widgets
(:mod:`benchmarks.plain_page`); seconds from pressing an arrow key to six maps of another hour drawn, both
hours computed before; what is sent to the server while maps are moved and enlarged; memory of the server
per further visitor; and how many of ``--visitors`` whose pages are open at once see another hour when all
ask for one. Needs Linux, Chromium and the ``dev`` extra. These are times on the clock of browser and
server together: run it where nothing else runs.
"""

from __future__ import annotations

import argparse
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from playwright.sync_api import Browser, Error, Page, sync_playwright

from explorer.serve import free_port
from tests.browser.helpers import Explorer, launch_arguments, running

MODELS = ("Quadratic interpolation", "Lapse-rate interpolation", "UNet (demo)", "GAN (demo)")
"""With the coarse input and the truth they make six maps."""
HOURS = 8
FURTHER = 6
VISITS = 5
SWITCH = """async (key) => {
    const drawn = () => new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))
    const fields = Bokeh.documents[0].get_model_by_name('fields')
    const maps = Object.keys(fields.data).filter(name => fields.data[name][0]?.length > 100)
    const before = Object.fromEntries(maps.map(name => [name, fields.data[name][0]]))
    const begin = performance.now()
    document.dispatchEvent(new KeyboardEvent('keydown', {key, bubbles: true}))
    while (!maps.every(name => fields.data[name][0] !== before[name])) await drawn()
    await drawn()
    return [maps.length, performance.now() - begin]
}"""


def resident(pid: int) -> float:
    """Memory of a process [MB]."""
    found = re.search(r"VmRSS:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    if found is None:
        raise RuntimeError(f"/proc/{pid}/status says nothing of memory.")
    return int(found[1]) * 1024 / 1e6


def close(browser: Browser) -> None:
    """Close all pages."""
    for context in browser.contexts:
        context.close()


def new_page(browser: Browser) -> Page:
    page = browser.new_context(viewport={"width": 1280, "height": 800}).new_page()
    page.set_default_timeout(120_000)
    return page


def start(page: Page, address: str) -> tuple[float, float]:
    """Seconds until the controls can be used and until the maps are drawn."""
    begin = time.monotonic()
    page.goto(address)
    page.get_by_label(MODELS[0]).first.click(trial=True)  # waits until a click would do something
    controls = time.monotonic() - begin
    Explorer(page, address).wait_for_maps()
    return controls, time.monotonic() - begin


def switches(page: Page) -> list[float]:
    """Seconds from the key to the maps, for hours that were computed before."""
    for name in MODELS:
        page.get_by_label(name).check()
        page.locator(".panel-head", has_text=name).first.wait_for()
    explorer = Explorer(page, page.url)
    explorer.wait_for_maps()
    found = []
    for round_, key in enumerate(("ArrowRight", "ArrowLeft", "ArrowRight")):
        for _ in range(HOURS):
            maps, milliseconds = page.evaluate(SWITCH, key)
            explorer.wait_for_maps()
            if maps != 2 + len(MODELS):
                raise RuntimeError(f"{maps} maps were drawn instead of {2 + len(MODELS)}.")
            if round_ > 0:
                found.append(milliseconds / 1000)
    return found


def messages_while_moving(page: Page) -> int:
    """Messages to the server while a map is enlarged and moved with the mouse."""
    canvas = Explorer(page, page.url).box("Truth")
    middle = canvas["x"] + canvas["width"] / 2, canvas["y"] + canvas["height"] / 2
    page.mouse.move(*middle)
    page.wait_for_timeout(500)
    page.evaluate("() => { window.sent = 0 }")
    for _ in range(5):
        page.mouse.wheel(0, -240)
        page.wait_for_timeout(50)
    page.mouse.down()
    page.mouse.move(middle[0] + 40, middle[1] + 30, steps=10)
    page.mouse.up()
    page.wait_for_timeout(1000)
    return int(page.evaluate("window.sent"))


COUNT_SENT = """
const send = WebSocket.prototype.send
WebSocket.prototype.send = function (...words) {
  window.sent = (window.sent ?? 0) + 1
  return send.apply(this, words)
}
"""


@contextmanager
def plain_page() -> Iterator[str]:
    """Address of the page to compare with."""
    port = free_port("localhost", 5300)
    place = Path(__file__).with_name("plain_page.py")
    process = subprocess.Popen(
        [sys.executable, "-m", "panel", "serve", str(place), "--port", str(port)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        yield f"http://localhost:{port}/plain_page"
    finally:
        process.terminate()
        process.wait()


def controls_of_plain_page(browser: Browser) -> float:
    """Seconds until a control of the page to compare with can be used, median of later visits."""
    found = []
    with plain_page() as address:
        page = new_page(browser)
        while True:
            try:
                page.goto(address)
                break
            except Error:  # the server is starting
                time.sleep(0.2)
        page.context.close()
        for _ in range(VISITS):
            page = new_page(browser)
            begin = time.monotonic()
            page.goto(address)
            page.get_by_label(MODELS[0]).first.click(trial=True)
            found.append(time.monotonic() - begin)
            page.context.close()
    return statistics.median(found)


def crowd(browser: Browser, address: str, visitors: int) -> tuple[int, float]:
    """Visitors with open pages who see another hour, and the seconds until the last of them does."""
    pages = [new_page(browser) for _ in range(visitors)]
    for page in pages:
        start(page, address)
    before = pages[0].locator(".head .when").first.inner_text()
    begin = time.monotonic()
    for page in pages:
        page.get_by_role("button", name="Next hour").click()
    content = 0
    for page in pages:
        Explorer(page, address).wait_for_new_hour(before)
        content += 1
    return content, time.monotonic() - begin


def measure(browser: Browser, address: str, pid: int, visitors: int) -> Iterator[tuple[str, str]]:
    """What was measured, row by row as it comes."""
    controls, maps = start(new_page(browser), address)
    yield "controls can be used, first visitor of a new server", f"{controls:.1f} s"
    yield "maps drawn, first visitor of a new server", f"{maps:.1f} s"
    close(browser)
    times = []
    for _ in range(VISITS):
        close(browser)
        page = new_page(browser)
        page.add_init_script(COUNT_SENT)
        times.append(start(page, address))
    for what, seconds in zip(("controls can be used", "maps drawn"), zip(*times, strict=True), strict=True):
        yield (
            f"{what}, later visitor",
            f"{statistics.median(seconds):.1f} s ({min(seconds):.1f}-{max(seconds):.1f} s)",
        )
    found = switches(page)
    longest = f"{statistics.median(found):.2f} s ({max(found):.2f} s)"
    yield f"another hour on six maps, {len(found)} times: median (longest)", longest
    yield "messages to the server while moving and enlarging", str(messages_while_moving(page))
    before = resident(pid)
    for _ in range(FURTHER):
        start(new_page(browser), address)
    each = (resident(pid) - before) / FURTHER
    yield f"memory of the server per further visitor (of {FURTHER})", f"{each:.0f} MB"
    close(browser)
    yield "controls can be used, plain page", f"{controls_of_plain_page(browser):.1f} s"
    content, seconds = crowd(browser, address, visitors)
    yield (
        f"of {visitors} open pages, those that showed another hour when all asked for one",
        f"{content} (the last after {seconds:.0f} s)",
    )


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.explorer")
    parser.add_argument("stores", nargs="+", type=Path)
    parser.add_argument("--visitors", type=int, default=20, help="how many come at once (20)")
    chosen = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as cache:
        settings = {"TRAMONTANA_CACHE": cache, "TRAMONTANA_CACHE_GB": "5"}
        with (
            running([path.resolve() for path in chosen.stores], None, environment=settings) as (address, pid),
            sync_playwright() as playwright,
        ):
            browser = playwright.chromium.launch(**launch_arguments())
            print("| what | |\n|---|---:|")
            for what, value in measure(browser, address, pid, chosen.visitors):
                print(f"| {what} | {value} |", flush=True)
            browser.close()


if __name__ == "__main__":
    main()
