"""What commands are given: stores, folders of checkpoints, domains with their static fields."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

if TYPE_CHECKING:
    import xarray as xr

    from core.data.store import Store
    from core.domain import Domain

PrecisionOption = Annotated[
    Literal["float32", "bfloat16"],
    typer.Option(
        help="bfloat16 lets denoisers multiply in half precision: faster on GPUs, and on processors that "
        "have instructions for it."
    ),
]
DomainOption = Annotated[
    str, typer.Option(help="`italy`, a YAML file of a domain of yours, or a store that lies on it.")
]
StaticOption = Annotated[
    Path | None,
    typer.Option(help="Static fields from `tramontana statics`; Italy has some that ship."),
]


def check_folder(checkpoints: Path | None) -> None:
    """Raise ValueError where a folder of checkpoints was named that is not there."""
    if checkpoints is not None and not checkpoints.is_dir():
        raise ValueError(f"There is no folder {checkpoints} with checkpoints.")


def open_store(path: Path) -> Store:
    """Open a store for reading; StoreError says what else a file is for that was given in its place."""
    from core.checkpoint import SUFFIX, published_advice
    from core.data.store import Store, StoreError
    from core.file_kind import file_kind

    if path.is_file():
        if file_kind(path) == "zip" and path.suffix != ".zip":
            raise StoreError(f"{path} is no store. {published_advice(path)}")
        if path.suffix == SUFFIX:
            raise StoreError(f"{path} is no store. See a model file with `tramontana checkpoint show`.")
    return Store.open(path)


def all_downscalers(checkpoints: Path | None, **options: Any) -> tuple[list[Any], list[tuple[Path, str]]]:
    """The interpolations, then the models of a folder (those that ship by default); unusable files."""
    from core.assets import shipped_checkpoints
    from core.downscale import find_downscalers, interpolations

    check_folder(checkpoints)
    models, unusable = find_downscalers(checkpoints or shipped_checkpoints(), **options)
    return [*interpolations(), *models], unusable


def place_and_static(domain: str, static: Path | None) -> tuple[Domain, xr.Dataset]:
    """A domain and its static fields: those of the file, else those that ship for Italy."""
    from core.data.statics import load_italy_static, load_static
    from core.domain import ITALY
    from core.domain_file import find_domain

    place = ITALY if domain == "italy" else find_domain(domain)
    if static is not None:
        return place, load_static(static, place)
    if place != ITALY:
        raise ValueError(
            f"The domain {place.name} needs static fields of its own: make them with `tramontana statics "
            f"--domain "
            f"{domain}` and give them with --static."
        )
    return place, load_italy_static()
