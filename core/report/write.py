"""A report on disk: figures, tables and the page."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import xarray as xr

from core.report.contents import Absent, models_of, targets_of
from core.report.figures import figures_of
from core.report.page import Drawn, page
from core.report.style import png
from core.report.tables import csv_files, markdown_page
from core.text import for_file_name


class ReportError(ValueError):
    """An evaluation of which no report can be made; the message says why."""


def write_report(
    evaluation: xr.Dataset, folder: Path, progress: Callable[[int, int], None] | None = None
) -> Path:
    """Write ``figures/*.png``, ``tables/*.csv``, ``table.md`` and ``report.html`` into a folder.

    Parameters
    ----------
    evaluation : as an evaluation's NetCDF file holds it; variables may be missing, then the page says which
        figures are left out and why
    folder : made where it does not exist; files of an earlier report are replaced one by one
    progress : called with (steps done, steps in all)

    Returns the path of ``report.html``, which is written last and needs none of the other files. Raises
    ReportError for a Dataset without models or targets, OSError where the folder can't be written to.
    """
    targets = targets_of(evaluation)
    if not targets or not models_of(evaluation):
        raise ReportError(
            "The Dataset has no coordinates model and target, so it is not an evaluation; give "
            "evaluation.nc as "
            "an evaluation writes it."
        )
    folder = Path(folder)
    kinds = [(target, kind) for target in targets for kind in figures_of(evaluation, target)]
    drawn = []
    for done, (target, kind) in enumerate(kinds):
        path = folder / "figures" / f"{for_file_name(target)}-{kind.key}.png"
        try:
            picture = png(kind.draw(evaluation, target))
            drawn.append(Drawn(target, kind.title, kind.caption(evaluation, target), picture))
            _write(path, picture)
        except Absent as reason:
            drawn.append(Drawn(target, kind.title, absent=str(reason.args[0])))
            # One of an earlier evaluation would pass for this one's.
            path.unlink(missing_ok=True)
        if progress is not None:
            progress(done + 1, len(kinds) + 1)
    for name, content in csv_files(evaluation).items():
        _write(folder / "tables" / name, content.encode())
    _write(folder / "table.md", markdown_page(evaluation).encode())
    report = folder / "report.html"
    _write(report, page(evaluation, drawn).encode())
    if progress is not None:
        progress(len(kinds) + 1, len(kinds) + 1)
    return report


def _write(path: Path, content: bytes) -> None:
    """All of the content or nothing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        temporary.write_bytes(content)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
