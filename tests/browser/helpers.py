"""Start the real server, open the real page, read what a person would see."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from playwright.sync_api import Page

from explorer.serve import command, free_port

ROOT = Path(__file__).resolve().parent.parent.parent
FLAGS = [
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
]  # fmt: skip
# Test processes side by side each have ports of their own: one is free until its server has started.
FIRST_PORT = 5100 + 150 * int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
PATIENCE = float(os.environ.get("TRAMONTANA_BROWSER_PATIENCE", "60"))
"""Seconds to wait for anything on the page; an upper bound, not an expectation."""


def launch_arguments() -> dict[str, Any]:
    """How to start Chromium: the system's where there is one, else the one Playwright installed."""
    found = shutil.which("chromium") or shutil.which("chromium-browser")
    return {"args": FLAGS, **({"executable_path": found} if found else {})}


@contextmanager
def served(
    stores: Sequence[Path],
    checkpoints: Path,
    *,
    folder: Path = ROOT,
    environment: Mapping[str, str] | None = None,
    port: int | None = None,
) -> Iterator[str]:
    """The address of the page; see :func:`running`."""
    with running(stores, checkpoints, folder=folder, environment=environment, port=port) as (address, _):
        yield address


@contextmanager
def running(
    stores: Sequence[Path],
    checkpoints: Path | None,
    *,
    folder: Path = ROOT,
    environment: Mapping[str, str] | None = None,
    port: int | None = None,
) -> Iterator[tuple[str, int]]:
    """Address and process number of ``panel serve`` in a process of its own, started from ``folder``."""
    port = port or free_port("localhost", FIRST_PORT)
    arguments = command(stores, checkpoints, port=port, open_browser=False)
    log = folder / f"server-{port}.log" if folder != ROOT else None
    with open(log or os.devnull, "w") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "panel", *arguments],
            cwd=folder,
            env={
                **os.environ,
                "OMP_NUM_THREADS": "1",
                # Results of one run must not be there in the next one.
                **({"TRAMONTANA_CACHE": str(folder / "results")} if log else {"TRAMONTANA_CACHE_GB": "0"}),
                **(environment or {}),
            },
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            address = f"http://localhost:{port}/app"
            _wait(lambda: _answers(address), "the server", process)
            yield address, process.pid
        finally:
            os.killpg(process.pid, signal.SIGTERM)
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()


def _answers(address: str) -> bool:
    try:
        with urllib.request.urlopen(address.rsplit("/", 1)[0] + "/static/js/bokeh.min.js", timeout=5):
            return True
    except OSError:
        return False


def _wait(done: Callable[[], bool], what: str, process: subprocess.Popen[bytes]) -> None:
    end = time.monotonic() + PATIENCE
    while not done():
        if process.poll() is not None:
            raise RuntimeError(f"{what} stopped with code {process.returncode}")
        if time.monotonic() > end:
            raise TimeoutError(f"{what} did not answer within {PATIENCE:g} s")
        time.sleep(0.1)


class Watcher:
    """What a page complained about and whom it asked, from the moment it is made."""

    def __init__(self, page: Page) -> None:
        self.complaints: list[str] = []
        self.requests: list[str] = []
        page.on("console", self._on_console)
        page.on("pageerror", lambda error: self.complaints.append(f"page error: {error}"))
        page.on("request", lambda request: self.requests.append(request.url))
        page.on("websocket", lambda socket: self.requests.append(socket.url))

    def _on_console(self, message: Any) -> None:
        if message.type == "error":
            self.complaints.append(f"console: {message.text}")

    @property
    def strangers(self) -> list[str]:
        """Requests to anybody but the server on this machine."""
        local = re.compile(r"^((http|ws)://(localhost|127\.0\.0\.1):\d+/|data:|blob:|about:)")
        return [url for url in self.requests if not local.match(url)]


class Explorer:
    """The page of the explorer as a person uses it."""

    def __init__(self, page: Page, address: str) -> None:
        self.page = page
        self.address = address
        page.set_default_timeout(PATIENCE * 1000)

    def open(self, query: str = "", *, wait: bool = True) -> Explorer:
        """Open the page, by default until its maps are drawn."""
        self.page.goto(self.address + (f"?{query}" if query else ""))
        if wait:
            self.wait_for_maps()
        return self

    # ---------------------------------------------------------------- what the page shows

    def model(self, name: str, expression: str) -> Any:
        """Value of a JavaScript ``expression`` of the Bokeh model ``m`` with this name."""
        return self.page.evaluate(
            f"""name => {{
                const m = Bokeh.documents.map(d => d.get_model_by_name(name)).find(m => m != null)
                return m == null ? null : ({expression})
            }}""",
            name,
        )

    def wait_for(self, function: str, argument: Any = None) -> None:
        """Wait until a JavaScript function gives something true."""
        self.page.wait_for_function(function, arg=argument)

    def wait_for_maps(self) -> None:
        """Wait until maps are drawn and nothing is being computed."""
        self.wait_for(
            """() => {
                if (typeof Bokeh === 'undefined' || Bokeh.documents.length == 0) return false
                const source = Bokeh.documents[0].get_model_by_name('fields')
                const loader = document.getElementById('loader')
                return source != null && source.data.height[0] > 0
                    && (loader == null || loader.style.display == 'none')
                    && Bokeh.documents[0].get_model_by_name('x').end > 1
            }"""
        )
        self.page.get_by_text("Coarse input").first.wait_for()
        self.wait_for_text_to_go("Looking for downscalers")
        self.wait_for_text_to_go("computing")

    def wait_for_text_to_go(self, words: str) -> None:
        """Wait until no visible text contains ``words``."""
        self.page.get_by_text(words).first.wait_for(state="hidden")

    @property
    def maps(self) -> list[str]:
        """Titles of the maps on the page, row by row."""
        heads = self.page.locator(".panel-head:visible").all()
        placed = [(head.bounding_box(), head.locator(".name").inner_text()) for head in heads]
        return [name for box, name in sorted(placed, key=lambda item: (item[0]["y"], item[0]["x"]))]

    @property
    def drawn(self) -> dict[str, float]:
        """Width [pixels] of every figure of a map that takes room on the page: key -> width."""
        return self.page.evaluate(
            """() => Object.fromEntries([...Bokeh.documents[0]._all_models.values()]
                .filter(model => model.type == 'Figure' && model.name?.startsWith('map-'))
                .map(model => [model.name.slice(4), Bokeh.index.find_one(model)])
                .map(([key, view]) => [key, view?.el.getBoundingClientRect().width])
                .filter(([, width]) => width > 0))"""
        )

    @property
    def hour(self) -> str:
        """The hour in the heading of the maps."""
        return self.page.locator(".head .when").first.inner_text()

    def box(self, title: str) -> dict[str, float]:
        """Where the map with this title is on the page: x, y, width, height [pixels]."""
        return self.page.evaluate(
            """name => Bokeh.index.find_one(Bokeh.documents[0].get_model_by_name(name))
                .el.getBoundingClientRect().toJSON()""",
            f"map-{self.key(title)}",
        )

    def window(self) -> list[float]:
        """[left, right, bottom, top] of the maps in the plane [m]."""
        return [
            *self.model("x", "[m.start, m.end]"),
            *self.model("y", "[m.start, m.end]"),
        ]

    def point(self, title: str, x: float, y: float) -> tuple[float, float]:
        """Where on the page the point (x, y) of the plane [m] is in a map."""
        key = self.key(title)
        place = self.page.evaluate(
            """([name, x, y]) => {
                const model = Bokeh.documents[0].get_model_by_name(name)
                const view = Bokeh.index.find_one(model)
                const box = view.el.getBoundingClientRect()
                const frame = view.frame ?? view.plot_view.frame
                const [sx] = frame.x_scale.v_compute([x]), [sy] = frame.y_scale.v_compute([y])
                return [box.left + sx, box.top + sy]
            }""",
            [f"map-{key}", x, y],
        )
        return place[0], place[1]

    def key(self, title: str) -> str:
        """Key of the field in the map with this title."""
        known = {
            "Coarse input": "coarse",
            "Truth": "truth",
            "Quadratic interpolation": "quadratic",
            "Lapse-rate interpolation": "lapse_rate",
        }
        return known[title] if title in known else self.model("fields", "Object.keys(m.data)").pop()

    def hover(self, title: str, x: float, y: float) -> str:
        """The text of the hover at a point of the plane [m]."""
        left, top = self.point(title, x, y)
        self.page.mouse.move(left - 3, top - 3)
        self.page.mouse.move(left, top)
        tip = self.page.locator(".map-hover:visible").first
        tip.wait_for()
        return tip.inner_text()

    # ---------------------------------------------------------------- what a person does

    def next_hour(self) -> None:
        """Press the button for the next hour and wait for it."""
        before = self.hour
        self.page.get_by_role("button", name="Next hour").click()
        self.wait_for_new_hour(before)

    def wait_for_new_hour(self, before: str) -> None:
        """Wait until the maps show another hour than ``before``."""
        self.page.locator(".head .when").filter(has_not_text=before).first.wait_for()
        self.wait_for_text_to_go("computing")

    def choose(self, label: str, option: str) -> None:
        """Choose an option of a selector in the sidebar."""
        self.page.get_by_label(label, exact=True).click()
        self.page.get_by_role("menuitem", name=option, exact=True).click()

    def view(self, name: str) -> None:
        """Switch to a view."""
        self.page.get_by_role("button", name=name, exact=True).click()

    def mode(self, name: str) -> None:
        """Switch between fields and differences."""
        self.page.get_by_role("button", name=name, exact=True).click()
