"""Directories of remote archives, large ones included, and members that are not let onto the disk."""

import io
import stat
import struct
import zipfile
from pathlib import Path

import pytest

from core.data.remote import MemberError
from core.data.remote.archive import Regions, RemoteArchive, held, open_local
from tests.core.data.remote.conftest import large_archive
from tests.range_server import serving, write_zip


@pytest.fixture
def served(tmp_path):
    with serving(tmp_path) as server:
        yield server


@pytest.fixture
def opened(served, client):
    """Opens an archive of the served folder through the server."""
    return lambda name: RemoteArchive(client, client.look(f"{served.address}/{name}"), name)


def unpacked(archive: RemoteArchive, path: Path, name: str, folder: Path) -> bytes:
    """A member of an archive, whose bytes are read from the file it lies in."""
    member = archive.directory.find(name)
    with path.open("rb") as file:

        def read(start: int, stop: int) -> bytes:
            assert member.start <= start < stop <= member.stop
            file.seek(start)
            return file.read(min(stop - start, 1000))

        archive.unpack(member, read, folder / "unpacked")
    return (folder / "unpacked").read_bytes()


def test_regions_of_a_file():
    asked = []

    def more(start: int, stop: int) -> bytes:
        asked.append((start, stop))
        return bytes(range(start, stop))

    file = io.BufferedReader(Regions(100, [held(80, bytes(range(80, 100)))], more), 16)
    file.seek(-5, 2)
    assert file.read() == bytes(range(95, 100))
    assert asked == []
    file.seek(60)
    assert file.read(30) == bytes(range(60, 90))
    assert asked[0][0] == 60
    assert asked[-1][1] == 80
    assert file.seek(100) == 100
    assert file.read(5) == b""
    with pytest.raises(OSError, match="before the beginning"):
        file.seek(-101, 2)
    with pytest.raises(OSError, match="at 0, which are not its own"):
        Regions(100, []).read(1)


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_members_of_every_method(tmp_path, opened, method):
    data = {"top/a.txt": b"a" * 5000, "top/b.txt": b"bc" * 3000, "top/empty": b""}
    path = write_zip(tmp_path / "a.zip", data, compression=method)
    archive = opened("a.zip")
    assert archive.directory.names() == list(data)
    for name, content in data.items():
        assert unpacked(archive, path, name.rpartition("/")[2], tmp_path) == content


def test_a_long_directory_is_read_once(tmp_path, opened, served, client):
    path = write_zip(tmp_path / "a.zip", {f"folder/file{number:05}.txt": b"x" for number in range(3000)})
    archive = opened("a.zip")
    assert len(archive.directory.names()) == 3000
    start = zipfile.ZipFile(path).start_dir
    assert len(served.requests) == 3
    # The directory, the end that is read first, and the four bytes of the look.
    assert client.transferred <= path.stat().st_size - start + 8192 + 4
    assert unpacked(archive, path, "file00007.txt", tmp_path) == b"x"


def test_an_archive_with_a_comment_and_something_before_it(tmp_path, opened):
    path = write_zip(tmp_path / "a.zip", {"a": b"1234" * 100})
    with zipfile.ZipFile(path, "a") as archive:
        archive.comment = b"c" * 60_000
    path.write_bytes(b"#!/bin/sh\n" * 50 + path.read_bytes())
    assert unpacked(opened("a.zip"), path, "a", tmp_path) == b"1234" * 100


def test_an_archive_beyond_4_gb(tmp_path, opened, client):
    hole = 5 << 30
    path = large_archive(tmp_path / "a.zip", hole)
    assert path.stat().st_size > hole
    assert path.stat().st_blocks * 512 < 10 << 20, "this file system keeps no sparse files"
    archive = opened("a.zip")
    member = archive.directory.find("2016/2016-05-02_low.pt.zst")
    assert member.start > hole
    assert unpacked(archive, path, "2016/2016-05-02_low.pt.zst", tmp_path) == b"low" * 1000
    hollow = archive.directory.find("hollow.bin")
    assert (hollow.start, hollow.size) == (0, hole)
    assert hollow.packed >= hole
    assert client.transferred < 20_000


def entry(name: str, *, mode: int = 0, data: bytes = b"data") -> dict[zipfile.ZipInfo, bytes]:
    """A member with exactly this name and these attributes of a file system."""
    info = zipfile.ZipInfo("x")
    info.filename = info.orig_filename = name
    info.external_attr = mode << 16
    return {info: data}


@pytest.mark.parametrize(
    ("name", "mode", "words"),
    [
        ("/etc/target.txt", 0, "absolute"),
        ("C:/target.txt", 0, "absolute"),
        ("a/../../target.txt", 0, "out of its folder"),
        ("..\\target.txt", 0, "backslashes"),
        ("a\\target.txt", 0, "backslashes"),
        ("a\x1b[2J/target.txt", 0, "control characters"),
        ("a/target.txt", stat.S_IFLNK | 0o777, "symbolic link"),
        ("a/target.txt", stat.S_IFIFO | 0o644, "no regular file"),
    ],
)
def test_hostile_members_are_refused(tmp_path, opened, name, mode, words):
    write_zip(tmp_path / "a.zip", entry(name, mode=mode))
    with pytest.raises(MemberError, match=rf"a\.zip.*is refused.*{words}"):
        opened("a.zip").directory.find("target.txt")


def test_regular_files_with_a_mode_are_accepted(tmp_path, opened):
    write_zip(tmp_path / "a.zip", entry("a/target.txt", mode=stat.S_IFREG | 0o644))
    assert opened("a.zip").directory.find("target.txt").size == 4


def test_files_of_a_folder(tmp_path, opened):
    members = {"a/outputs/x": b"1", "a/outputs/.DS_Store": b"", "a/old/outputs/y": b"", "a/outputs/z/w": b""}
    write_zip(
        tmp_path / "a.zip", members | {"a/outputs/": b"", "__MACOSX/a/outputs/._x": b"", "moreoutputs/v": b""}
    )
    assert [member.name for member in opened("a.zip").directory.files_in("outputs")] == ["a/outputs/x"]
    write_zip(tmp_path / "b.zip", {"a/outputs/x": b"1", "b/outputs/x": b"2"})
    with pytest.raises(MemberError, match="outputs more than once: 'a/outputs' and 'b/outputs'"):
        opened("b.zip").directory.files_in("outputs")
    write_zip(tmp_path / "c.zip", {"a/y": b"1"})
    assert opened("c.zip").directory.files_in("outputs") == []


def test_the_same_name_twice_is_refused(tmp_path, opened):
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("a/x", b"1")
        with pytest.warns(UserWarning, match="Duplicate"):
            archive.writestr("a/x", b"2")
    with pytest.raises(MemberError, match="x more than once: 'a/x' and 'a/x'"):
        opened("a.zip").directory.find("x")
    with pytest.raises(MemberError, match=r"a\.zip holds 'a/x' more than once\."):
        opened("a.zip").directory.files_in("a")


def test_hostile_members_in_a_folder_are_refused(tmp_path, opened):
    write_zip(tmp_path / "a.zip", entry("outputs/good.pkl") | entry("outputs\\bad.pkl"))
    with pytest.raises(MemberError, match=r"bad\.pkl.*backslashes"):
        opened("a.zip").directory.files_in("outputs")
    write_zip(tmp_path / "b.zip", entry("outputs/."))
    assert opened("b.zip").directory.files_in("outputs") == []  # names with a dot in front are left out


def test_an_encrypted_member_is_refused(tmp_path, opened):
    path = write_zip(tmp_path / "a.zip", {"a": b"data"})
    data = bytearray(path.read_bytes())
    data[data.index(b"PK\x01\x02") + 8] |= 1
    path.write_bytes(data)
    with pytest.raises(MemberError, match="encrypted"):
        opened("a.zip").directory.find("a")


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_methods_that_can_fill_the_memory_are_refused(tmp_path, opened, method):
    write_zip(tmp_path / "a.zip", {"a": bytes(10_000)}, compression=method)
    with pytest.raises(MemberError, match=f"method {method}"):
        opened("a.zip").directory.find("a")


def test_a_header_that_points_behind_its_member_is_damage(tmp_path, opened):
    members = {"a": b"d" * 100, "b": b"e" * 300_000}
    path = write_zip(tmp_path / "a.zip", members, compression=zipfile.ZIP_STORED)
    data = bytearray(path.read_bytes())
    struct.pack_into("<H", data, 28, 60_000)
    path.write_bytes(data)
    with pytest.raises(MemberError, match=r"'a' is damaged.*not its own"):
        unpacked(opened("a.zip"), path, "a", tmp_path)


def test_files_of_one_name_in_two_folders_are_refused(tmp_path, opened):
    write_zip(tmp_path / "a.zip", {"a/outputs/x.pkl": b"1", "b/outputs/x.pkl": b"2"})
    with pytest.raises(MemberError, match="outputs more than once: 'a/outputs' and 'b/outputs'"):
        opened("a.zip").directory.files_in("outputs")


def test_what_a_mac_adds_is_left_out(tmp_path, opened):
    write_zip(tmp_path / "a.zip", {"a/outputs/x.pkl": b"1", "__MACOSX/a/outputs/._x.pkl": b"2"})
    assert [member.name for member in opened("a.zip").directory.files_in("outputs")] == ["a/outputs/x.pkl"]


def test_an_unknown_method_is_refused(tmp_path, opened):
    path = write_zip(tmp_path / "a.zip", {"a": b"data"})
    data = bytearray(path.read_bytes())
    data[data.index(b"PK\x01\x02") + 10] = 97
    path.write_bytes(data)
    with pytest.raises(MemberError, match="method 97"):
        opened("a.zip").directory.find("a")


def test_members_that_lie_over_each_other_are_refused(tmp_path, opened):
    path = write_zip(tmp_path / "a.zip", {"a": b"d" * 100, "b": b"e" * 100}, compression=zipfile.ZIP_STORED)
    data = bytearray(path.read_bytes())
    at = data.index(b"PK\x01\x02")
    struct.pack_into("<II", data, at + 20, 150, 150)
    path.write_bytes(data)
    with pytest.raises(MemberError, match="'a' lies over other members"):
        opened("a.zip").directory.find("a")


@pytest.mark.parametrize("name", ["low.zst", "2016/low.zst"])
def test_found_by_the_end_of_the_path(tmp_path, opened, name):
    members = {"data/2016/low.zst": b"1", "data/2016/follow.zst": b"2", "__MACOSX/2016/low.zst": b"3"}
    write_zip(tmp_path / "a.zip", members)
    directory = opened("a.zip").directory
    assert directory.find(name).name == "data/2016/low.zst"
    assert directory.find("2017/low.zst") is None
    assert directory.find("ow.zst") is None


def test_the_least_deep_of_several(tmp_path, opened):
    write_zip(
        tmp_path / "a.zip",
        {"d/old/metadata.csv": b"1", "d/metadata.csv": b"2", "e/x.csv": b"", "f/x.csv": b""},
    )
    directory = opened("a.zip").directory
    assert directory.find("metadata.csv").name == "d/metadata.csv"
    with pytest.raises(MemberError, match=r"x\.csv more than once: 'e/x\.csv' and 'f/x\.csv'"):
        directory.find("x.csv")


def test_what_is_no_archive(tmp_path, opened):
    for number, content in enumerate((b"<html>Sign in</html>" * 100, b"", b"PK\x05\x06" + b"\xff" * 18)):
        (tmp_path / f"{number}.zip").write_bytes(content)
        with pytest.raises(MemberError, match=f"{number}.zip is damaged, or no zip archive"):
            open_local(tmp_path / f"{number}.zip", f"{number}.zip")
        if content:
            with pytest.raises(MemberError, match=f"{number}.zip is damaged, or no zip archive"):
                opened(f"{number}.zip")


def test_a_directory_of_unbelievable_length(tmp_path, opened):
    path = large_archive(tmp_path / "a.zip", 5 << 30)
    with path.open("r+b") as file:
        file.seek(-200, 2)
        end = file.read()
        at = end.index(b"PK\x06\x06")
        file.seek(-200 + at + 40, 2)
        file.write(struct.pack("<QQ", 4 << 30, 1 << 30))
    with pytest.raises(MemberError, match=r"directory has .* GB, which can't be true"):
        opened("a.zip")


def test_damage_is_found_by_the_checksum(tmp_path, opened):
    path = write_zip(tmp_path / "a.zip", {"a": b"data" * 50}, compression=zipfile.ZIP_STORED)
    archive = opened("a.zip")
    data = bytearray(path.read_bytes())
    data[60] ^= 1
    path.write_bytes(data)
    with pytest.raises(MemberError, match=r"a\.zip: 'a' is damaged.*CRC"):
        unpacked(archive, path, "a", tmp_path)


def test_a_member_shorter_than_announced_is_found(tmp_path, opened):
    path = write_zip(tmp_path / "a.zip", {"a": b"data" * 50})
    data = bytearray(path.read_bytes())
    struct.pack_into("<I", data, data.index(b"PK\x01\x02") + 24, 210)
    path.write_bytes(data)
    with pytest.raises(MemberError, match="'a' is shorter"):
        unpacked(opened("a.zip"), path, "a", tmp_path)


def test_another_member_in_its_place_is_found(tmp_path, opened):
    path = write_zip(tmp_path / "a.zip", {"aa": b"data" * 50})
    archive = opened("a.zip")
    path.write_bytes(path.read_bytes().replace(b"aa", b"bb", 1))
    with pytest.raises(MemberError, match=r"damaged.*differ"):
        unpacked(archive, path, "aa", tmp_path)
