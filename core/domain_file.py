"""Domains of people: a small YAML file that says where a region lies and how fine its grid is."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field
from pyproj import Transformer

from core.domain import ITALY, Domain, DomainError
from core.typed_yaml import read_yaml

Side = Annotated[int, Field(ge=2, le=100_000)]


class DomainFile(BaseModel):
    """A domain around a place.

    Attributes
    ----------
    name : what people call it
    longitude, latitude : of its centre [degrees], to within half a coarse cell
    height, width : fine cells from north to south and from west to east; networks want multiples of 32
    spacing : side of a fine cell [m]
    ratio : fine cells along one side of a coarse cell
    crs : projected coordinate reference system in metres; that of Europe by default
    supergrid_cell : coarse cells along one side of a supergrid cell; 0 for the greatest common divisor of
        both sides
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    name: str = Field(min_length=1, max_length=80)
    longitude: float = Field(ge=-180, le=360)
    latitude: float = Field(ge=-90, le=90)
    height: Side
    width: Side
    spacing: float = Field(2000.0, gt=0)
    ratio: int = Field(8, ge=1)
    crs: str = "EPSG:3035"
    supergrid_cell: int = Field(0, ge=0)

    def domain(self) -> Domain:
        """The domain; its corner lies on a whole number of coarse cells, so that neighbours share their grid.

        Raises DomainError where the sides don't suit the ratio or the projection is unknown or knows no such
        place.
        """
        try:
            x, y = Transformer.from_crs("EPSG:4326", self.crs, always_xy=True).transform(
                self.longitude, self.latitude, errcheck=True
            )
        except Exception as error:
            raise DomainError(f"{self.crs!r} has no place for the centre of {self.name}: {error}.") from error
        cell = self.spacing * self.ratio
        left = round((x - self.width * self.spacing / 2) / cell) * cell
        top = round((y + self.height * self.spacing / 2) / cell) * cell
        return Domain.regular(
            self.name,
            left=left + self.spacing / 2,
            top=top - self.spacing / 2,
            shape=(self.height, self.width),
            spacing=self.spacing,
            ratio=self.ratio,
            crs=self.crs,
            supergrid_cell=self.supergrid_cell,
        )


def read_domain(path: str | Path) -> Domain:
    """The domain of a YAML file with the keys of :class:`DomainFile`.

    Raises DomainError, naming file and key, where it can't be read or describes none.
    """
    return read_yaml(path, DomainFile, "a domain", DomainError).domain()


def find_domain(word: str) -> Domain:
    """The domain that a word of the command line means: ``italy``, a YAML file, or a store.

    Raises DomainError where it means none, StoreError where a folder is no store.
    """
    if word.lower() == "italy":
        return ITALY
    path = Path(word)
    if path.is_dir():
        from core.data.store import Store

        return Store.open(path).domain
    if not path.exists():
        raise DomainError(
            f"There is no domain {word}. Give italy, a YAML file that describes one "
            f"(docs/your-own-domain.md), or the "
            "folder of a store."
        )
    return read_domain(path)
