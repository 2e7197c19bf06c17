"""Half-fetched members on the disk: a file per request, whose length says how far it came."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path

from core.data.remote.archive import Member, RemoteArchive
from core.data.remote.words import ChangedArchiveError

WORK = ".fetching"
"""Folder for what is not complete yet, in the folder that the files land in."""
PIECE = 1 << 26
"""Bytes of one request: servers count requests (Zenodo lets guests make some 60 a minute), not bytes."""
NOTES = "member.json"


class Part:
    """What is on the disk of one member, compressed as it is in its archive.

    Parameters
    ----------
    folder, path : the folder that files land in, and the place of this one in it
    archive, member : where it comes from

    Nothing is written before :meth:`begin`. Raises ChangedArchiveError where what is there came from another
    version of the archive.
    """

    def __init__(self, folder: Path, path: str, archive: RemoteArchive, member: Member) -> None:
        self.archive = archive
        self.member = member
        self.folder = folder / WORK / hashlib.sha256(path.encode()).hexdigest()[:16]
        self._check(path)

    @property
    def _identity(self) -> dict[str, str | int | None]:
        remote, member = self.archive.remote, self.member
        return {
            "url": remote.url,
            "etag": remote.etag,
            "archive_size": self.archive.size,
            "start": member.start,
            "stop": member.stop,
            "size": member.size,
            "crc": member.crc,
            "piece": PIECE,
        }

    def _check(self, path: str) -> None:
        try:
            before = json.loads((self.folder / NOTES).read_text(encoding="utf-8"))
        except FileNotFoundError:
            return
        except (OSError, ValueError):
            # Stopped while the first line was written: nothing else can be there.
            before = None
        now = self._identity
        if not isinstance(before, dict):
            self.discard()
            return
        # Another server of the same archive has another address, and may mark its versions in another way.
        compared = now if before.get("url") == now["url"] else now.keys() - {"url", "etag"}
        different = [key for key in compared if before.get(key) != now[key]]
        if different:
            key = "etag" if different == ["etag"] else max(different, key="archive_size".__eq__)
            raise ChangedArchiveError(
                f"{path} was fetched in part from an archive that is another one now: its "
                f"{key.replace('_', ' ')} was {before.get(key)} and is {now[key]} at {now['url']}. Add "
                "--restart to throw away what is incomplete and begin again."
            )

    def begin(self) -> None:
        """Make the folder and note what its files belong to."""
        self.folder.mkdir(parents=True, exist_ok=True)
        notes = self.folder / NOTES
        if not notes.exists():
            temporary = notes.with_suffix(".new")
            temporary.write_text(json.dumps(self._identity), encoding="utf-8")
            temporary.replace(notes)

    def discard(self) -> None:
        """Remove all of it."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def pieces(self) -> list[tuple[int, int, Path]]:
        """Start and stop in the archive, and the file, of each request."""
        return [
            (start, min(start + PIECE, self.member.stop), self.folder / f"{start:016}")
            for start in range(self.member.start, self.member.stop, PIECE)
        ]

    def had(self) -> int:
        """Bytes that are there."""
        return sum(min(length(file), stop - start) for start, stop, file in self.pieces())

    def read(self, start: int, stop: int) -> bytes:
        """Bytes of the archive; fewer at the end of a piece. All pieces must be there."""
        number = (start - self.member.start) // PIECE
        first = self.member.start + number * PIECE
        with (self.folder / f"{first:016}").open("rb") as file:
            file.seek(start - first)
            return file.read(min(stop, first + PIECE) - start)

    def unpack(self, target: Path) -> None:
        """Unpack it, check its CRC, give it its name and remove the pieces.

        Raises MemberError where it is damaged; the pieces are removed then, too.
        """
        unpacked = self.folder / "unpacked"
        try:
            self.archive.unpack(self.member, self.read, unpacked)
        except ValueError:
            self.discard()
            raise
        target.parent.mkdir(parents=True, exist_ok=True)
        unpacked.replace(target)
        self.discard()


def length(file: Path) -> int:
    """Bytes of a file; none where there is none."""
    try:
        return file.stat().st_size
    except FileNotFoundError:
        return 0
