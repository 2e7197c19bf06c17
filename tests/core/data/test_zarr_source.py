"""Zarr stores over HTTP: only what is wanted is read, failures are retried, nothing is unpickled."""

import base64
import json
import pickle
import socket
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest
import xarray as xr
import zarr

from core.data import zarr_source
from core.data.era5 import Era5Error, ingest
from core.data.store import Store
from core.data.zarr_source import is_zarr
from tests.era5_like import DOMAIN, GRID, expected, linear, stamps

# As in ARCO-ERA5: the globe, from north, 0 to 360 degrees, an hour per chunk, all levels together.
GLOBE = np.arange(90.0, -90.1, -2.0), np.arange(0.0, 360.0, 2.0)
TIMES = stamps("2020-02-28T00", 72)
WANTED = TIMES[24:27]


class Handler(SimpleHTTPRequestHandler):
    """Serves a folder, notes what was asked for, fails as often as it is told to; may ask who is there."""

    def __init__(self, *args, asked, failures, **options):
        self.asked, self.failures = asked, failures
        super().__init__(*args, **options)

    def do_GET(self):
        self.asked.append(self.path)
        if self.failures.get("login", self.headers["Authorization"]) != self.headers["Authorization"]:
            self.send_error(401)
            return
        name = self.path.rsplit("/", 2)[-2]
        if self.failures.get(name, 0) > 0:
            self.failures[name] -= 1
            self.send_error(503)
            return
        super().do_GET()

    def log_message(self, *_):
        pass


@pytest.fixture
def serve():
    """Starts a server of a folder; returns (address, list of paths asked for, failures by variable)."""
    servers = []

    def start(folder):
        asked, failures = [], {}
        handler = partial(Handler, directory=str(folder), asked=asked, failures=failures)
        server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        servers.append(server)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        return f"http://127.0.0.1:{server.server_port}", asked, failures

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


@pytest.fixture(autouse=True)
def at_once(monkeypatch):
    monkeypatch.setattr(zarr_source, "WAIT", 0.0)


def near(longitude):
    """Linear within the domain, continuous at 180 degrees only."""
    return (longitude + 180) % 360 - 180


def write_arco(path, zarr_format, consolidated=True):
    """Three days under the names of ARCO-ERA5."""
    latitude, longitude = GLOBE
    place = latitude[:, None], near(longitude)
    surface = linear("t2m", TIMES, *place)
    rain = np.maximum(linear("tp", TIMES, *place), 0)
    level = np.stack([linear("t", TIMES, *place) - 50, linear("t", TIMES, *place)], axis=1)
    dims = ("time", "latitude", "longitude")
    dataset = xr.Dataset(
        {
            "2m_temperature": (
                dims,
                np.clip(surface, 200, 330),
                {"units": "K", "long_name": "2 metre temperature"},
            ),
            "total_precipitation": (dims, np.clip(rain, 0, 0.1), {"units": "m"}),
            "temperature": (("time", "level", *dims[1:]), np.clip(level, 200, 320), {"units": "K"}),
            "geopotential": (
                ("time", "level", *dims[1:]),
                np.full_like(level, 9000.0),
                {"units": "m**2 s**-2"},
            ),
            "geopotential_at_surface": (dims[1:], np.full((91, 180), 980.665), {"units": "m**2 s**-2"}),
            "total_cloud_cover": (dims, np.full_like(surface, 0.5), {"units": "(0 - 1)"}),
        },
        coords={
            "time": TIMES,
            "level": ("level", np.array([500, 850])),
            "latitude": ("latitude", latitude, {"units": "degrees_north"}),
            "longitude": ("longitude", longitude, {"units": "degrees_east"}),
        },
        attrs={"valid_time_start": "1940-01-01"},
    )
    for name in ("2m_temperature", "total_precipitation", "temperature"):
        dataset[name] = dataset[name].astype(np.float32)
    encoding = {
        str(name): {"chunks": (1, *variable.shape[1:])}
        for name, variable in dataset.data_vars.items()
        if "time" in variable.dims
    }
    dataset.to_zarr(path, zarr_format=zarr_format, consolidated=consolidated, encoding=encoding)


def put(source, out, **options):
    return ingest([source], out, DOMAIN, static=None, **options)


@pytest.mark.parametrize("zarr_format", [2, 3])
def test_only_the_hours_and_variables_wanted_are_read(tmp_path, serve, zarr_format):
    write_arco(tmp_path / "arco.zarr", zarr_format)
    address, asked, _ = serve(tmp_path)
    report = put(f"{address}/arco.zarr", tmp_path / "s.zarr", start=WANTED[0], end=WANTED[-1])
    assert report.predictors == ("t2m", "tp", "t850")
    assert report.hours == 3
    assert report.orography
    store = Store.open(tmp_path / "s.zarr")
    np.testing.assert_array_equal(store.hours, WANTED)
    assert f"{address}/arco.zarr" in store.attrs["source"]
    coarse = store.read_coarse()
    np.testing.assert_allclose(coarse["t2m"], expected("t2m", WANTED), atol=1e-3)
    np.testing.assert_allclose(coarse["t850"], expected("t", WANTED), atol=1e-3)
    np.testing.assert_allclose(coarse["orography"], 100, rtol=1e-6)
    values = [path for path in asked if "2m_temperature/" in path and path[-1].isdigit()]
    hours = {
        int(path.split("2m_temperature/")[1].strip("c/").replace(".", "/").split("/")[0]) for path in values
    }
    # Of 72 hours those wanted, and at most the one before.
    assert {24, 25, 26} <= hours <= {23, 24, 25, 26}
    assert not any("total_cloud_cover" in path and path[-1].isdigit() for path in asked)


def test_a_password_in_the_address_is_used_and_neither_shown_nor_kept(tmp_path, serve):
    write_arco(tmp_path / "arco.zarr", 3)
    address, _, failures = serve(tmp_path)
    failures["login"] = f"Basic {base64.b64encode(b'me:secret').decode()}"
    source = f"{address.replace('://', '://me:secret@')}/arco.zarr"
    report = put(source, tmp_path / "s.zarr", start=WANTED[0], end=WANTED[0])
    store = Store.open(tmp_path / "s.zarr")
    assert f"{address}/arco.zarr" in store.attrs["source"]
    assert "secret" not in f"{store.attrs} {report}"
    for wrong in (source.replace("secret", "secrets"), source.replace("arco", "absent"), source + "/t2m"):
        with pytest.raises(Era5Error, match=r"arco|absent") as error:
            put(wrong, tmp_path / "t.zarr", start=WANTED[0], end=WANTED[0])
        assert "secret" not in str(error.value)


def test_a_store_of_format_3_without_consolidated_metadata(tmp_path, serve):
    write_arco(tmp_path / "arco.zarr", 3, consolidated=False)
    address, _, _ = serve(tmp_path)
    assert put(f"{address}/arco.zarr", tmp_path / "s.zarr", start=WANTED[0], end=WANTED[-1]).hours == 3


def test_a_folder_on_disk(tmp_path):
    write_arco(tmp_path / "arco.zarr", 3)
    assert is_zarr(tmp_path / "arco.zarr")
    report = put(tmp_path / "arco.zarr", tmp_path / "s.zarr", end=TIMES[1])
    assert report.hours == 2
    (tmp_path / "empty.zarr").mkdir()
    with pytest.raises(Era5Error, match=r"empty\.zarr is no Zarr store"):
        put(tmp_path / "empty.zarr", tmp_path / "t.zarr")


def test_values_equal_those_of_the_whole_field(tmp_path, serve):
    # Seen the other way round: the selected part, read by xarray from disk and interpolated by it.
    write_arco(tmp_path / "arco.zarr", 2)
    address, _, _ = serve(tmp_path)
    put(f"{address}/arco.zarr", tmp_path / "s.zarr", start=WANTED[0], end=WANTED[-1])
    with xr.open_zarr(tmp_path / "arco.zarr", chunks=None) as source:
        field = source["2m_temperature"].sel(time=WANTED).load()
    true = field.interp(
        latitude=xr.DataArray(GRID.latitude, dims=("y", "x")),
        longitude=xr.DataArray(GRID.longitude, dims=("y", "x")),
    )
    found = Store.open(tmp_path / "s.zarr").read_coarse()["t2m"]
    np.testing.assert_allclose(found, true, atol=1e-3)


def test_a_server_that_fails_now_and_then_is_asked_again(tmp_path, serve):
    write_arco(tmp_path / "arco.zarr", 2)
    address, _, failures = serve(tmp_path)
    failures["2m_temperature"] = 2
    # Two failures of metadata would fail the opening; these are of values, which have the same folder.
    report = put(f"{address}/arco.zarr", tmp_path / "s.zarr", start=WANTED[0], end=WANTED[0])
    assert report.hours == 1
    failures["temperature"] = 10**6
    with pytest.raises(Era5Error, match=r"arco\.zarr can't be read .*503.*Check the address"):
        put(f"{address}/arco.zarr", tmp_path / "t.zarr", start=WANTED[0], end=WANTED[0])
    assert not list(tmp_path.glob("*t.zarr*"))


def test_memory_is_bounded_by_the_size_of_chunks(tmp_path, monkeypatch):
    write_arco(tmp_path / "arco.zarr", 2)
    used = []
    original = zarr.config.set
    monkeypatch.setattr(
        zarr_source.zarr.config,
        "set",
        lambda values: used.append(values["async.concurrency"]) or original(values),
    )
    put(tmp_path / "arco.zarr", tmp_path / "s.zarr", start=WANTED[0], end=WANTED[-1])
    assert set(used) == {10}
    used.clear()
    # A chunk of both levels has 2 x 91 x 180 x 4 bytes, one of the surface half of it.
    monkeypatch.setattr(zarr_source, "_BYTES_AT_ONCE", 300_000)
    put(tmp_path / "arco.zarr", tmp_path / "t.zarr", start=WANTED[0], end=WANTED[-1])
    assert {2, 4} <= set(used)


def closed_port():
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


def test_addresses_that_can_not_be_read(tmp_path, serve):
    address, _, _ = serve(tmp_path)
    for source, message in [
        (f"http://127.0.0.1:{closed_port()}/arco.zarr", "Check the address and the connection"),
        (f"{address}/nothing.zarr", "Check the address and the connection"),
        ("nowhere://bucket/arco.zarr", r"is not installed.*tramontana\[cloud\]"),
        ("s3://bucket/arco.zarr", r"s3fs.*tramontana\[cloud\]"),
    ]:
        try:
            import s3fs  # noqa: F401

            if source.startswith("s3"):
                continue
        except ImportError:
            pass
        with pytest.raises(Era5Error, match=message):
            put(source, tmp_path / "s.zarr")
    write_arco(tmp_path / "arco.zarr", 2)
    with pytest.raises(
        Era5Error, match="no hour of those wanted; it has 2020-02-28T00:00 to 2020-03-01T23:00"
    ):
        put(f"{address}/arco.zarr", tmp_path / "s.zarr", start=np.datetime64("2021-01-01"))
    assert not list(tmp_path.glob("*s.zarr*"))


class Payload:
    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return open, (self.path, "w")


@pytest.mark.parametrize(
    ("dtype", "filters", "message"),
    [
        ("<i8", [{"id": "pickle", "protocol": 5}], r"evil\.zarr can't be read"),
        ("|O", [{"id": "pickle", "protocol": 5}], r"evil\.zarr can't be read"),
        ("|O", [{"id": "vlen-utf8"}, {"id": "pickle", "protocol": 5}], "time is packed with pickle"),
    ],
)
def test_nothing_is_unpickled(tmp_path, dtype, filters, message):
    group = zarr.open_group(str(tmp_path / "evil.zarr"), mode="w", zarr_format=2)
    group.create_array("time", shape=(2,), dtype="int64", chunks=(2,), compressors=None)
    folder = tmp_path / "evil.zarr" / "time"
    metadata = json.loads((folder / ".zarray").read_text())
    metadata |= {"dtype": dtype, "filters": filters, "fill_value": None}
    (folder / ".zarray").write_text(json.dumps(metadata))
    (folder / ".zattrs").write_text(json.dumps({"_ARRAY_DIMENSIONS": ["time"]}))
    (folder / "0").write_bytes(pickle.dumps(Payload(tmp_path / "executed")))
    with pytest.raises(Era5Error, match=message):
        put(tmp_path / "evil.zarr", tmp_path / "s.zarr")
    assert not (tmp_path / "executed").exists()
