"""The dialog of models: every checkpoint file, what it is and whether it runs here; new ones."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import panel as pn
import panel_material_ui as pmui

from core.variables import VARIABLES
from explorer.checkpoints import CheckpointFile
from explorer.intake import MB, SUFFIX, IntakeError, Upload, import_published
from explorer.jobs import sentence
from explorer.session import Session
from explorer.style import block, text
from explorer.views.pieces import PIECE, Pieces

INNER = {"sizing_mode": "stretch_width", "margin": (4, 0)}


class Models(pn.viewable.Viewer):
    """The dialog and the button that opens it. What it shows is made when it is first opened."""

    def __init__(self, session: Session, **params: Any) -> None:
        super().__init__(**params)
        self.session = session
        self.button = pmui.Button(
            label="Models…", variant="text", size="small", margin=(6, 12, 0, 0), align="end",
            description="Models: the checkpoint files with their provenance and hash, and adding another one.",
            description_delay=1500, sx={"padding": "0 6px", "minWidth": "30px", "fontSize": "12px"},
        )  # fmt: skip
        self.dialog = pmui.Dialog(
            title="Models", title_variant="h6", show_close_button=True, close_on_click=True,
            width_option="md", sizing_mode="stretch_width", margin=0,
            sx={"& .MuiIconButton-root": {"color": "inherit"}},
        )  # fmt: skip
        self._list = block(min_height=60)
        self._made = False
        self.button.on_click(lambda _: self.open())
        session.param.watch(self._update, ["choices", "opened", "remarks"])

    def __panel__(self) -> pn.viewable.Viewable:
        return self.dialog

    def open(self) -> None:
        """Show the dialog."""
        if not self._made:
            self._made = True
            self.uploading = Uploading(self.session)
            self.importing = Importing(self.session)
            add = pn.Row(
                self.uploading, self.importing,
                sizing_mode="stretch_width", margin=(4, 0, 16, 0), styles={"flex-wrap": "wrap", "gap": "12px 32px"},
            )  # fmt: skip
            # The content of a dialog shrinks to its height unless it is told not to.
            self.dialog.objects = [
                pn.Column(self._list, add, sizing_mode="stretch_width", margin=0, styles={"flex": "0 0 auto"})
            ]
        self.session.look()
        self._update()
        self.dialog.open = True

    def _update(self, *_: object) -> None:
        if self._made:
            self._list.object = show_files(self.session)


def show_files(session: Session) -> str:
    """HTML of the list of checkpoint files."""
    settings, files = session.library.settings, session.checkpoint_files
    folders = " and ".join(text(folder) for folder in settings.checkpoint_folders)
    if files is None:
        return "<p class='caption'>Checkpoint files are being looked for…</p>"
    if not files:
        return (
            f"<p class='caption'>There is no checkpoint file in {folders}. Add one below, train one "
            "(<code>tramontana train</code>), or start the explorer with --checkpoints and another folder.</p>"
        )
    many = f"{len(files)} checkpoint files" if len(files) > 1 else "1 checkpoint file"
    extra = " or named at the start" if settings.files else ""
    return f"<p class='caption'>{many} in {folders}{extra}.</p>" + "".join(_card(session, f) for f in files)


def _card(session: Session, file: CheckpointFile) -> str:
    choice = next((c for c in session.choices or () if file.key and c.key == file.key), None)
    if file.problem:
        state = "<span class='state no'>can't be used</span>"
    elif choice is None:
        state = ""
    elif choice.runs:
        state = "<span class='state ok'>runs on this store</span>"
    else:
        state = "<span class='state no'>can't run on this store</span>"
    reason = file.problem or (choice.reason if choice is not None else "")
    name = choice.label if choice is not None else file.label or file.path.name
    size = (
        f"{file.size / MB:.1f} MB" if file.size >= MB / 10 else f"{file.size:,} bytes".replace(",", "\u202f")
    )
    if file.parameters:
        size += f", {file.parameters / MB:.2f} million parameters"
    rows = [
        ("File", file.path.name, str(file.path)),
        ("Size", size, "Size on disk, and how many numbers were learned"),
    ]
    if file.targets:
        rows.append(("Makes", ", ".join(VARIABLES[name].long_name for name in file.targets), ""))
    if file.domain:
        rows.append(("Domain", file.domain, "The domain it was trained on"))
    rows += [(what, value, "") for what, value in file.provenance]
    if file.hash:
        rows.append(("Content hash", f"{file.hash[:16]}…", f"SHA-256 {file.hash}"))
    facts = "".join(
        f"<dt>{text(what)}</dt><dd title='{text(more)}'>{text(value)}</dd>" for what, value, more in rows
    )
    whole = "".join(f"<dt>{text(what)}</dt><dd>{text(value)}</dd>" for what, value in file.header)
    header = f"<details><summary>Whole header</summary><dl>{whole}</dl></details>" if whole else ""
    told = "".join(f"<dt>{text(what)}</dt><dd>{text(value)}</dd>" for what, value in file.card)
    card = f"<details><summary>Model card</summary><dl>{told}</dl></details>" if told else ""
    if not told and file.header:
        card = "<p class='caption'>This file has no model card.</p>"
    remark = session.remarks.get(file.key) if file.key else None
    unusual = ""
    if remark is not None:
        lines = "<br>".join(text(line) for line in remark.details)
        unusual = (
            f"<details><summary>{text(remark.sentence)}</summary><p class='caption'>{lines}</p></details>"
        )
    return (
        f"<div class='model'><h3>{text(name)} <small>{text(file.kind_name)}</small>{state}</h3>"
        + (f"<p class='failure'>{text(reason)}</p>" if reason else "")
        + f"{unusual}<dl>{facts}</dl>{card}{header}</div>"
    )


class Uploading(pn.viewable.Viewer):
    """Takes a file from the visitor's machine, or says why that can't be done here."""

    def __init__(self, session: Session, **params: Any) -> None:
        super().__init__(**params)
        self.session = session
        settings = session.library.settings
        self._upload: Upload | None = None
        self._refused = False
        self.status = block("", min_height=18, margin=(4, 0, 0, 0))
        what = _heading("Upload a checkpoint")
        why_not = settings.no_upload
        if why_not:
            # Without the widget, since one that is disabled still takes what is sent to it.
            self._layout = _part(what, block(f"<p class='caption'>{text(why_not)}</p>"))
            return
        session.on_close(self._drop)
        most = settings.most_upload_mb
        self.input = Pieces(
            self._arrive, self._finish, self._say_failure,
            label="Choose a .safetensors file", uploaded_label="Choose another .safetensors file",
            accept=SUFFIX, max_file_size=most * MB, chunk_size=PIECE, variant="outlined", size="small",
            description=f"A checkpoint of Tramontana, {most} MB at most. It is checked before it is kept.", **INNER,
        )  # fmt: skip
        self._layout = _part(
            what,
            block(
                f"<p class='caption'>Goes to {text(settings.uploads)} once it was loaded and found sound; "
                f"{most} MB at most. No file is replaced.</p>"
            ),
            self.input, self.status,
        )  # fmt: skip

    def __panel__(self) -> pn.viewable.Viewable:
        return self._layout

    def _arrive(self, name: str, number: object, piece: bytes) -> None:
        settings = self.session.library.settings
        try:
            if number == 1:
                self._drop()
                self._refused = False
                self._expected = 1
                self._upload = Upload(settings.uploads, name, settings.most_upload_mb * MB)
            if self._refused or self._upload is None:
                return
            if number != self._expected:
                raise IntakeError("The file did not arrive in order; send it again.")
            self._expected += 1
            self._upload.add(piece)
            self.status.object = _said(f"{name}: {self._upload.size / MB:.1f} MB arrived.")
        except IntakeError as error:
            self._refused = True
            self._drop()
            self.status.object = _said(str(error), failed=True)

    def _finish(self) -> None:
        upload, self._upload = self._upload, None
        if upload is None:
            if not self._refused:
                self.status.object = _said("That file is empty.", failed=True)
            return
        self.status.object = _said(f"{upload.name} is being checked…")

        def work() -> None:
            try:
                catalogue = self.session.library.catalogue.result()
                path = upload.keep({one.key: catalogue.label(one) for one in catalogue.downscalers})
            except Exception as error:
                failure = error
                self.session.later(lambda: self._failed(failure))
            else:
                self.session.later(lambda: self._done(path))

        # Each file that was sent counts, and not the last one alone.
        self.session.library.submit(work)

    def _done(self, path: Path) -> None:
        self.status.object = _said(f"{path.name} is there; tick it under Downscalers.")
        self.session.look()

    def _failed(self, error: Exception) -> None:
        self.status.object = _said(sentence(error), failed=True)

    def _say_failure(self, words: str) -> None:
        self._drop()
        self.status.object = _said(words, failed=True)

    def _drop(self) -> None:
        if self._upload is not None:
            self._upload.drop()
            self._upload = None


class Importing(pn.viewable.Viewer):
    """Takes a published checkpoint that lies on the server's machine, or says why that can't be done here."""

    def __init__(self, session: Session, **params: Any) -> None:
        super().__init__(**params)
        self.session = session
        self._background = session.background()
        what = _heading("Import a published checkpoint")
        why_not = session.library.settings.no_import
        if why_not:
            self._layout = _part(what, block(f"<p class='caption'>{text(why_not)}</p>"))
            return
        self.file = pmui.TextInput(
            label="Path of the .ckpt file", size="small", **INNER,
            description="A Lightning checkpoint of the published models (UNet, GAN, LDM) on the machine that serves "
            "this page. Nothing in it is executed.",
        )  # fmt: skip
        self.normalization = pmui.TextInput(
            label="Path of normalization_data.pkl", size="small", **INNER,
            description="The published statistics of the training data, or JSON with predictors and targets.",
        )  # fmt: skip
        self.domain = pmui.Select(
            label="Trained for", options={"Italy, 2 km": "italy", "The domain of the open store": "store"},
            size="small", description="The domain of the model, with its static fields.", **INNER,
        )  # fmt: skip
        self.kind = pmui.Checkbox(
            label="Fine-tuned with the PDE loss (LDM_PDE)", size="small", value=False, **INNER
        )
        self.button = pmui.Button(
            label="Import", variant="outlined", size="small", margin=(8, 0, 0, 0),
            description="Import: read and check the file, and write a checkpoint of ours beside the others.",
        )  # fmt: skip
        self.bar = pmui.LinearProgress(
            variant="indeterminate", sizing_mode="stretch_width", margin=(8, 0, 0, 0), visible=False
        )
        self.status = block("", min_height=18, margin=(4, 0, 0, 0))
        self.button.on_click(lambda _: self._import())
        self._layout = _part(
            what, self.file, self.normalization, self.domain, self.kind, self.button, self.bar, self.status
        )

    def __panel__(self) -> pn.viewable.Viewable:
        return self._layout

    def _import(self) -> None:
        settings, opened = self.session.library.settings, self.session.opened
        named = [widget.value.strip() for widget in (self.file, self.normalization)]
        if not all(named):
            self.status.object = _said("Give the paths of both files.", failed=True)
            return
        here = self.domain.value == "store"
        if here and opened is None:
            self.status.object = _said("No store is open whose domain could be taken.", failed=True)
            return
        file, normalization = (settings.folder / Path(name).expanduser() for name in named)
        kind = "ldm_pde" if self.kind.value else None

        def work() -> Iterator[Path]:
            from core.data.statics import load_italy_static
            from core.domain import ITALY

            yield import_published(
                file, normalization, settings.uploads, kind=kind,
                domain=opened.domain if here else ITALY,
                static=opened.static if here else load_italy_static(),
            )  # fmt: skip

        self.button.disabled = self.bar.visible = True
        self.status.object = _said(f"{file.name} is being read and checked…")
        self._background.ask(work, self._done, self._failed)

    def _done(self, path: Path) -> None:
        self.button.disabled = self.bar.visible = False
        self.status.object = _said(f"{path.name} is there; tick it under Downscalers.")
        self.session.look()

    def _failed(self, error: Exception) -> None:
        self.button.disabled = self.bar.visible = False
        self.status.object = _said(sentence(error), failed=True)


def _said(words: str, *, failed: bool = False) -> str:
    kind = "failure" if failed else "caption"
    return f"<div class='{kind}' role='status' aria-live='polite'>{text(words)}</div>"


def _heading(words: str) -> pn.pane.HTML:
    return block(f"<div class='section'>{words}</div>", margin=(10, 0, 4, 0))


def _part(*objects: Any) -> pn.Column:
    return pn.Column(*objects, sizing_mode="stretch_width", margin=0, styles={"flex": "1 1 300px"})
