"""The dialog that makes files of what the page shows."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from typing import Any

import panel as pn
import panel_material_ui as pmui
from bokeh.models import ColumnDataSource

from explorer.export.command import in_lines, make_command
from explorer.export.make import TYPES, file_name, make_file
from explorer.export.scene import ExportError, Scene, take_scene
from explorer.jobs import sentence
from explorer.session import Session
from explorer.snapshot import show_hour
from explorer.style import block, text
from explorer.views.sender import Download, Sender

COMMAND = "<div class='caption'>Makes the fields of the downscalers again, without this page.</div>"
ALL_MAPS = "All maps, a band each"
COPY = """
const text = source.data.text[0]
const done = () => {
  button.data.label = 'Copied'
  setTimeout(() => { button.data.label = 'Copy' }, 1500)
}
if (navigator.clipboard) navigator.clipboard.writeText(text).then(done)
else {
  // Pages that are not served over HTTPS have no clipboard but this one. The text area must lie in the
  // dialog, which would take the focus from anything outside.
  const area = document.createElement('textarea')
  area.value = text
  const place = document.querySelector('[role=dialog]') ?? document.body
  place.append(area)
  area.select()
  document.execCommand('copy')
  area.remove()
  done()
}
"""


class ExportDialog(pn.viewable.Viewer):
    """A button, the dialog it opens, and what sends the files."""

    def __init__(self, session: Session, **params: Any) -> None:
        super().__init__(**params)
        self.session = session
        self._latest = session.background()
        self._words = session.background()
        self._busy = False
        self.sender = Sender()
        self.button = pmui.Button(
            label="Export", variant="outlined", size="small", margin=(0, 12, 0, 0), align="center",
            description="Export what is shown: data, figure, table, command", css_classes=["export"],
        )  # fmt: skip
        self._about = block(margin=(0, 0, 6, 0))
        self._status = block(margin=(6, 0, 0, 0), min_height=22)
        self._map = pmui.Select(
            label="Maps", size="small", width=210, margin=0,
            description="Bands of the GeoTIFF: every map on the fine grid, or one on its own grid.",
        )  # fmt: skip
        self._captions = {kind: block(align="center") for kind in ("nc", "tif", "figure", "csv")}
        self._buttons: dict[str, pmui.Button] = {
            kind: self._make_button(kind, label)
            for kind, label in (
                ("nc", "NetCDF"), ("tif", "GeoTIFF"), ("png", "PNG"), ("pdf", "PDF"), ("csv", "CSV"),
            )
        }  # fmt: skip
        self._command = block(min_height=60)
        self._plain = ColumnDataSource(data={"text": [""]}, name="export-command")
        self._copy = pmui.Button(
            label="Copy", variant="outlined", size="small", width=96, margin=0,
            description="Copy the command to the clipboard",
        )  # fmt: skip
        self._copy.js_on_click(args={"source": self._plain, "button": self._copy}, code=COPY)
        self.dialog = pmui.Dialog(
            self._about,
            _row("Data", self._captions["nc"], self._buttons["nc"]),
            _row("Raster", self._captions["tif"], self._map, self._buttons["tif"]),
            _row("Figure", self._captions["figure"], self._buttons["png"], self._buttons["pdf"]),
            _row("Table", self._captions["csv"], self._buttons["csv"]),
            _row("Command", block(COMMAND, align="center"), self._copy),
            self._command,
            self._status,
            title="Export", title_variant="h6", show_close_button=True, close_on_click=True, width_option="md",
            sx={"& .MuiIconButton-root": {"color": "inherit"}},  # the cross, else dark on dark
        )  # fmt: skip
        self.button.on_click(lambda _: self.open())
        session.param.watch(self._update, ["snapshot", "mode", "reference", "region", "scores", "limits"])

    def __panel__(self) -> pn.viewable.Viewable:
        return pn.Row(self.dialog, self.sender, width=0, height=0, margin=0, sizing_mode="fixed")

    def open(self) -> None:
        """Open the dialog over what is shown now."""
        self._status.object = ""
        self.dialog.open = True
        self._update()

    def close(self) -> None:
        """The visitor left."""
        self._latest.drop()
        self._words.drop()
        self.sender.drop()

    # ---------------------------------------------------------------- what there is

    def _make_button(self, kind: str, label: str) -> pmui.Button:
        button = pmui.Button(
            label=label, variant="contained", size="small", width=96, margin=0, description=f"Download a {label} file"
        )  # fmt: skip
        button.on_click(lambda _: self.press(kind))
        return button

    def _update(self, *_: object) -> None:
        if not self.dialog.open:
            return
        try:
            scene = take_scene(self.session)
        except ExportError as error:
            self._about.object = f"<div class='caption'>{text(error)}</div>"
            self._enable(False)
            self._say_command("")
            return
        left_out = f" Not ready and left out: {', '.join(scene.missing)}." if scene.missing else ""
        synthetic = " The data is synthetic, and every file says so." if scene.opened.synthetic else ""
        self._about.object = (
            f"<div class='caption'><b>{text(scene.title)} · {text(show_hour(scene.hour))} · "
            f"{text(scene.window.name)}</b><br>{text(scene.opened.name)}.{synthetic}{text(left_out)}</div>"
        )
        extra = sum(len(pieces) for pieces in scene.members.values())
        members = f" with the {extra} members that are there" if extra > len(scene.members) else ""
        maps = len(scene.panels)
        words = {
            "nc": f"NetCDF (CF), every variable of {_count(len(scene.fields), 'field')}{members}, SI units, whole domain",
            "tif": f"GeoTIFF in {scene.units} with the projection, whole domain",
            "figure": f"{_count(maps, 'map')} of the region for a page of 180 mm, with graticule and scale",
            "csv": f"Statistics{' and scores' if scene.scores else ''} of the region, a row per field",
        }
        for name, caption in words.items():
            self._captions[name].object = f"<div class='caption'>{text(caption)}</div>"
        options = {ALL_MAPS: ""}
        for panel in scene.panels:  # two checkpoints may have one label
            label = f"{panel.label} ({panel.key})" if panel.label in options else panel.label
            options[label] = panel.key
        if self._map.options != options:
            kept = self._map.value if self._map.value in options.values() else ""
            self._map.param.update(options=options, value=kept)
        self._enable(not self._busy)

        def work() -> Iterator[str]:
            yield in_lines(make_command(scene, self.session.library))

        self._words.ask(work, self._say_command, lambda error: self._say_command("", sentence(error)))

    def _enable(self, enabled: bool) -> None:
        for button in self._buttons.values():
            button.disabled = not enabled

    def _say_command(self, command: str, why: str = "") -> None:
        self._plain.data = {"text": [command]}
        self._copy.disabled = not command
        self._command.object = (
            f"<pre class='command'>{text(command)}</pre>"
            if command
            else f"<div class='caption'>{text(why)}</div>"
        )

    # ---------------------------------------------------------------- files

    def press(self, kind: str) -> None:
        """Make a file of what is shown now, in the background, and send it."""
        if self._busy:
            return
        try:
            scene = take_scene(self.session)
        except ExportError as error:
            self._fail(error)
            return
        key = self._map.value or "" if kind == "tif" else ""
        name = file_name(scene, kind, key)
        self._busy = True
        self._enable(False)
        self._say(f"Making {name}…")
        self._latest.ask(self._work(scene, kind, key, name), self._send, self._fail)

    def _work(self, scene: Scene, kind: str, key: str, name: str) -> Callable[[], Iterator[Download]]:
        def work() -> Iterator[Download]:
            content = make_file(scene, self.session.library, kind, key)
            yield Download(name, TYPES[kind], content, os.fstat(content.fileno()).st_size)

        return work

    def _send(self, download: Download) -> None:
        self._say(f"Sending {download.name} ({_megabytes(download.size)})…")
        self.sender.send(download, self._sent)

    def _sent(self, download: Download) -> None:
        self._finish(f"{download.name} ({_megabytes(download.size)}) is in your downloads.")

    def _fail(self, error: Exception) -> None:
        self._finish(sentence(error), failed=True)

    def _finish(self, words: str, *, failed: bool = False) -> None:
        self._busy = False
        self._enable(True)
        self._say(words, failed=failed)

    def _say(self, words: str, *, failed: bool = False) -> None:
        kind = "failure" if failed else "caption"
        self._status.object = f"<div class='{kind}' role='status'>{text(words)}</div>"


def _row(name: str, caption: pn.pane.HTML, *widgets: Any) -> pn.Row:
    """One kind of file: its name, what it holds, its buttons."""
    return pn.Row(
        block(f"<div class='export-kind'>{name}</div>", width=78, height=24, sizing_mode="fixed", align="center"), caption, *widgets,
        sizing_mode="stretch_width", margin=0, css_classes=["export-row"],
        styles={"align-items": "center", "gap": "10px", "padding": "7px 0"},
    )  # fmt: skip


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def _megabytes(size: int) -> str:
    return f"{size / 2**20:.1f} MB" if size >= 2**20 else f"{max(1, round(size / 1024))} kB"
