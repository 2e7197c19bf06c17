"""Published archives in little, a server of them, and a client that does not wait long."""

import random
import zipfile
from pathlib import Path

import pytest

from core.data.remote import Client, read_catalogue
from tests.range_server import serving, write_zip

HIGH = 40_000
LOW = 9_000


def noise(name: str, count: int) -> bytes:
    """Bytes that do not compress, the same for the same name."""
    return random.Random(name).randbytes(count)


def day_files(folder: str, day: str, targets: tuple[str, ...] = ("2mT", "UV")) -> dict[str, bytes]:
    """Members of a day in an archive whose files lie in a folder."""
    names = ["low", *(f"high_{target}" for target in targets)]
    paths = [f"{folder}{day[:4]}/{day}_{name}.pt.zst" for name in names]
    return {path: noise(path.rpartition("/")[2], LOW if "low" in path else HIGH) for path in paths}


def common_files(folder: str) -> dict[str, bytes]:
    """Members that belong to all days."""
    statics = ("dtm", "land_cover_classes", "lat")
    return {
        f"{folder}metadata.csv": b"ref_time,files_path_low,files_path_high,hour\n" * 50,
        f"{folder}normalization_data.pkl": noise("normalization", 300),
        f"{folder}plotting_resources/borders_downscaling_domain_3035.geojson": b"{}",
    } | {f"{folder}static_var/{name}_2km_domain_trim_EPSG3035.tif": noise(name, 3_000) for name in statics}


def large_archive(path: Path, hole: int) -> Path:
    """An archive whose first member is a hole of more than 4 GB, with small members behind it."""
    hollow = zipfile.ZipInfo("days/hollow.bin")
    hollow.file_size = hollow.compress_size = hole
    hollow.CRC = hollow.header_offset = 0
    with path.open("wb") as file:
        header = hollow.FileHeader(zip64=True)
        file.write(header)
        file.truncate(len(header) + hole)
    with zipfile.ZipFile(path, "a") as archive:
        archive.filelist.append(hollow)
        archive.NameToInfo[hollow.filename] = hollow
        archive.writestr("days/2016/2016-05-02_low.pt.zst", b"low" * 1000)
        archive.writestr("days/2016/2016-05-03_low.pt.zst", b"next" * 1000)
    return path


@pytest.fixture
def published(tmp_path) -> Path:
    """A folder to serve: the sample, one archive of three years, and the weights, laid out as on Zenodo."""
    records = tmp_path / "server" / "records"
    sample = common_files("sample_data/") | day_files("sample_data/", "2014-12-28")
    write_zip(records / "12934521/files/sample_data.zip", sample)
    days = [f"2016-05-{day:02}" for day in range(1, 11)]
    years = {name: data for day in days for name, data in day_files("", day).items()}
    years |= day_files("", "2016-05-11", ("2mT", "UV", "TP")) | {"metadata.csv": b"ref_time\n"}
    write_zip(records / "12945058/files/2015-2017.zip", years)
    weights = {
        f"pretrained_models/{name}.ckpt": noise(name, 5_000) for name in ("LDM_residual_2mT", "UNET_UV")
    } | {f"pretrained_models/outputs/{name}.pkl": noise(name, 2_000) for name in ("metrics", "results_2mT")}
    write_zip(records / "12941117/files/pretrained_models.zip", weights)
    return tmp_path / "server"


@pytest.fixture
def server(published):
    """The server of these archives."""
    with serving(published) as served:
        yield served


@pytest.fixture
def catalogue(server):
    """The catalogue that ships, with the server in the place of Zenodo."""
    return read_catalogue().with_mirror(server.address)


@pytest.fixture
def client(monkeypatch):
    """A client that waits hundredths of seconds, whatever proxies the environment names."""
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
    with Client(pause=0.01, timeout=10) as made:
        yield made
