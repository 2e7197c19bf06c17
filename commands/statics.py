"""Static fields of one's own."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from commands.console import say
from commands.inputs import DomainOption


def read_classes(path: Path) -> dict[int, int]:
    """Land-cover numbers and the classes they belong to, from a CSV file with two columns."""
    from csv import reader

    try:
        with path.open(newline="") as file:
            return {int(number): int(target) for number, target in reader(file)}
    except ValueError as error:
        raise ValueError(
            f"{path} must have two whole numbers in every line, number and class, without a header: {error}."
        ) from error


def statics(
    elevation: Annotated[Path, typer.Option(help="Elevation model, GeoTIFF or NetCDF, metres.")],
    out_path: Annotated[Path, typer.Option("--out", help="NetCDF file to write.")],
    land_cover: Annotated[Path | None, typer.Option(help="Land-cover classes, GeoTIFF or NetCDF.")] = None,
    classes: Annotated[
        Path | None,
        typer.Option(help="CSV of `number,class` (1-16 IGBP, 0 water) for land cover with other numbers."),
    ] = None,
    land_mask: Annotated[Path | None, typer.Option(help="Land fraction or mask, GeoTIFF or NetCDF.")] = None,
    store: Annotated[
        Path | None, typer.Option(help="Take the domain of this store instead of Italy.")
    ] = None,
    domain: DomainOption = "italy",
) -> None:
    """Average an elevation model and a land-cover map of yours to the fine grid."""
    from core.data.statics import build_static, save_static
    from core.domain_file import find_domain

    static = build_static(
        find_domain(domain if store is None else str(store)),
        elevation=elevation,
        land_cover=land_cover,
        land_mask=land_mask,
        classes=None if classes is None else read_classes(classes),
    )
    save_static(static, out_path)
    say(f"Wrote {out_path}: {', '.join(map(str, static.data_vars))}.")
    say(static.attrs["coverage"])
