"""Requests to the Climate Data Store, and sending them to a client that is none."""

import ast
import json
import sys
import types
from pathlib import Path

import numpy as np
import pytest

from core.data.cds_request import as_json, as_python, era5_area, era5_requests, send
from core.data.era5 import Era5Error, ingest
from core.data.era5_files import _AT_LEVEL, _OROGRAPHY_NAMES, _SURFACE
from core.data.store import Store
from core.domain import ITALY
from core.variables import PREDICTORS
from tests.era5_like import DOMAIN, fields, write_new


def test_the_area_surrounds_the_domain_on_the_grid_of_era5():
    north, west, south, east = era5_area(ITALY)
    grid = ITALY.coarse
    assert north - 0.5 > grid.latitude.max() > grid.latitude.min() > south + 0.5
    assert east - 0.5 > grid.longitude.max() > grid.longitude.min() > west + 0.5
    assert north - grid.latitude.max() < 1
    assert grid.longitude.min() - west < 1
    for edge in (north, west, south, east):
        assert edge * 4 == round(edge * 4)
    assert era5_area(ITALY, 1.0)[0] == north + 0.5
    with pytest.raises(ValueError, match="at least ERA5's spacing"):
        era5_area(ITALY, 0.1)


@pytest.mark.parametrize(("data_format", "ending"), [("netcdf", "nc"), ("grib", "grib")])
def test_requests_hold_every_predictor_hour_and_day(data_format, ending):
    requests = era5_requests(ITALY, "2016-01-30", "2016-03-31", data_format=data_format)
    orography, *rest = requests
    assert orography.request["variable"] == ["geopotential"]
    assert orography.request["day"] == ["30"]
    assert orography.request["time"] == ["00:00"]
    assert [one.file for one in rest] == [
        f"era5-{kind}-{span}.{ending}"
        for span in ("2016-01-30-to-31", "2016-02", "2016-03")
        for kind in ("single-levels", "850-hpa")
    ]
    for one in rest:
        request = one.request
        assert request["product_type"] == ["reanalysis"]
        assert request["data_format"] == data_format
        assert request["download_format"] == "unarchived"
        assert request["time"] == [f"{hour:02d}:00" for hour in range(24)]
        assert request["area"] == era5_area(ITALY)
        assert ("pressure_level" in request) == (one.dataset == "reanalysis-era5-pressure-levels")
    assert rest[1].request["pressure_level"] == ["850"]
    days = {tuple((one.request["year"][0], one.request["month"][0], len(one.request["day"]))) for one in rest}
    assert days == {("2016", "01", 2), ("2016", "02", 29), ("2016", "03", 31)}
    # What is asked for is what the reader of files knows, by the store's own names.
    names = [*rest[0].request["variable"], *rest[1].request["variable"]]
    assert {(_SURFACE | _AT_LEVEL)[name] for name in names} == set(PREDICTORS)
    assert len(names) == 14
    assert "geopotential" in _OROGRAPHY_NAMES


@pytest.mark.parametrize(
    ("start", "end", "message"),
    [
        ("2016-05-02", "2016-05-01", "lies before the start"),
        ("May", "2016-05-01", "start 'May' is no date"),
        ("1939-12-31", "1940-01-02", "ERA5 begins on 1940-01-01"),
    ],
)
def test_days_that_can_not_be_asked_for(start, end, message):
    with pytest.raises(ValueError, match=message):
        era5_requests(ITALY, start, end)


class Client:
    """Writes small files of the kind asked for; fails at the request it is told to."""

    asked: list
    fail_at = None

    def __init__(self):
        self.asked = []

    def retrieve(self, name, request, target):
        self.asked.append((name, request))
        Path(target).write_bytes(b"half")
        if len(self.asked) == self.fail_at:
            raise RuntimeError("the request you have submitted is not valid\nmore lines")
        days = [f"{request['year'][0]}-{request['month'][0]}-{day}" for day in request["day"]]
        times = np.array([f"{day}T{hour}" for day in days for hour in request["time"]], "datetime64[ns]")
        if request["variable"] == ["geopotential"]:
            dataset = fields(["t2m"], times).rename(t2m="z") * 0 + 980.665
            dataset["z"].attrs = {"units": "m**2 s**-2"}
        elif "pressure_level" in request:
            dataset = fields(["q", "t", "u", "v", "w"], times).assign_coords(pressure_level=850.0)
        else:
            dataset = fields(["t2m", "msl", "u10", "v10", "d2m", "sst", "sd", "tp", "ssrd"], times)
        Path(target).unlink()
        write_new(dataset, target)


def test_python_as_printed_makes_the_same_calls(tmp_path, monkeypatch):
    requests = era5_requests(DOMAIN, "2016-05-01", "2016-05-02")
    assert json.loads(as_json(requests)) == [vars(one) for one in requests]
    client = Client()
    monkeypatch.setitem(sys.modules, "cdsapi", types.SimpleNamespace(Client=lambda: client))
    monkeypatch.chdir(tmp_path)
    program = as_python(requests, Path("era5"))
    ast.parse(program)
    exec(program, {})
    assert client.asked == [(one.dataset, one.request) for one in requests]
    assert sorted(path.name for path in Path("era5").iterdir()) == sorted(one.file for one in requests)


def test_what_is_sent_can_be_ingested(tmp_path):
    requests = era5_requests(DOMAIN, "2020-03-01", "2020-03-01")
    delivered = list(send(requests, tmp_path, Client()))
    assert [one.path.name for one in delivered] == [one.file for one in requests]
    assert not any(one.kept for one in delivered)
    files = [one.path for one in delivered]
    ingest(files, tmp_path / "s.zarr", DOMAIN, static=None, accumulation="hourly")
    contents = Store.open(tmp_path / "s.zarr").contents
    assert contents.predictors == PREDICTORS
    assert contents.coarse_orography
    assert contents.hours == 24


def test_a_failed_request_leaves_what_came_and_the_same_call_goes_on(tmp_path):
    requests = era5_requests(DOMAIN, "2020-03-01", "2020-03-01")
    client = Client()
    client.fail_at = 2
    with pytest.raises(Era5Error, match=r"did not deliver era5-single.*is not valid\)\. What came before is"):
        list(send(requests, tmp_path, client))
    assert [path.name for path in tmp_path.iterdir()] == ["era5-orography.nc"]
    again = Client()
    delivered = list(send(requests, tmp_path, again))
    assert [one.kept for one in delivered] == [True, False, False]
    assert len(again.asked) == 2


def test_the_same_request_twice_at_once_never_shares_a_file(tmp_path):
    requests = era5_requests(DOMAIN, "2020-03-01", "2020-03-01")[:1]
    contents = iter((b"of the second", b"of the first"))

    class Nested:
        """Asks for the same once more while its own answer is on the way."""

        def __init__(self, inner):
            self.inner = inner

        def retrieve(self, name, request, target):
            Path(target).write_bytes(b"half")
            if self.inner is not None:
                list(send(requests, tmp_path, self.inner))
            assert Path(target).read_bytes() == b"half"
            Path(target).write_bytes(next(contents))

    (delivered,) = send(requests, tmp_path, Nested(Nested(None)))
    assert delivered.path.read_bytes() == b"of the first"
    assert list(tmp_path.iterdir()) == [delivered.path]


def test_without_cdsapi_or_its_configuration(tmp_path, monkeypatch):
    requests = era5_requests(DOMAIN, "2020-03-01", "2020-03-01")
    for name in ("CDSAPI_URL", "CDSAPI_KEY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("CDSAPI_RC", str(tmp_path / "absent"))
    monkeypatch.setenv("HOME", str(tmp_path))
    with pytest.raises(Era5Error, match="cdsapi is not configured"):
        list(send(requests, tmp_path / "era5"))
    monkeypatch.setitem(sys.modules, "cdsapi", None)
    with pytest.raises(Era5Error, match=r"needs cdsapi: pip install 'tramontana\[cds\]'"):
        list(send(requests, tmp_path / "era5"))
    assert not (tmp_path / "era5").exists()
