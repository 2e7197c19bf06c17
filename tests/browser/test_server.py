"""What a page does when its server goes, and when it comes back."""

from pathlib import Path

from playwright.sync_api import Browser, WebSocketRoute

from explorer.serve import free_port
from tests.browser.helpers import FIRST_PORT, Explorer, Watcher, served


def test_a_page_says_that_its_server_went_and_comes_back_with_it(browser: Browser, place: Path):
    port = free_port("localhost", FIRST_PORT + 100)
    stores, checkpoints = [place / "full.zarr"], place / "checkpoints"
    page = browser.new_context(viewport={"width": 1280, "height": 800}).new_page()
    watcher = Watcher(page)
    with served(stores, checkpoints, folder=place, port=port) as address:
        explorer = Explorer(page, address).open("mode=difference&models=quadratic")
        explorer.next_hour()
        hour, maps = explorer.hour, explorer.maps
        explorer.wait_for("() => location.search.includes('hour=')")
    lost = page.get_by_role("alert").filter(has_text="The connection to the server was lost")
    lost.wait_for()
    assert page.get_by_role("button", name="Reload now").is_visible()
    assert explorer.maps == maps  # what was there can still be looked at
    with served(stores, checkpoints, folder=place, port=port):
        lost.wait_for(state="detached")
        explorer.wait_for_maps()
        assert (explorer.hour, explorer.maps) == (hour, maps)
        explorer.next_hour()
        page.context.close()
    assert watcher.strangers == []
    assert [words for words in watcher.complaints if "ERR_CONNECTION" not in words] == []


def test_a_page_that_came_back_and_loses_its_server_at_once_does_not_go_round(
    explorer: Explorer,
):
    page, sockets = explorer.page, []

    def through(socket: WebSocketRoute) -> None:
        socket.connect_to_server()
        sockets.append(socket)

    page.route_web_socket("**/ws", through)
    explorer.open()
    page.evaluate("sessionStorage.setItem('tramontana-came-back', String(Date.now() + 1e6))")
    loads: list[str] = []
    page.on("domcontentloaded", lambda page: loads.append(page.url))
    sockets[0].close()
    page.get_by_role("alert").filter(has_text="was lost again").wait_for()
    page.wait_for_timeout(4000)
    assert loads == []
    page.get_by_role("button", name="Reload now").click()
    explorer.wait_for_maps()
    assert len(loads) == 1
