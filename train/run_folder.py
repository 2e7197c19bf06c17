"""The folder of a training run: what is being trained, on what, and the states to continue from.

run.json      config, data and normalisation, written when training begins
last.ckpt     state after the last complete round
best.ckpt     weights with the smallest validation loss
logs/         scores and pictures of every round, a new version_N at every start
cache/        fields computed once for the whole run, where a stage has any
"""

from __future__ import annotations

import errno
import json
import os
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from core import __version__

RECORD = "run.json"
LAST = "last.ckpt"
BEST = "best.ckpt"
LOGS = "logs"
CACHE = "cache"


NO_ROOM = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})


class TrainError(ValueError):
    """Training that can't start or go on; the message says why and what to do."""


@contextmanager
def writing(folder: Path) -> Iterator[None]:
    """Turn an error about a full disk into a TrainError."""
    try:
        yield
    except OSError as error:
        if error.errno not in NO_ROOM:
            raise
        raise TrainError(
            f"There is no room to write to {folder} ({error.strerror}). What was there is as it was. Free "
            "some space; the same command then goes on from the last complete round."
        ) from error


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A name beside ``path`` to write to, which takes its place when all is written and on the disk.

    Where that fails, what stood at ``path`` is as it was and nothing else is left.
    """
    temporary = path.with_name(f".{path.name}.partial")
    try:
        yield temporary
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def find_run(
    folder: Path,
    identity: Mapping[str, Mapping[str, Any]],
    *,
    fresh: bool,
    defaults: Mapping[str, Any] | None = None,
) -> dict[str, Any] | None:
    """The record of the run in ``folder`` that has the same ``identity``; None where there is none.

    ``identity`` holds plain JSON values: "config" and "data". ``defaults`` stand for keys of the config that
    did not exist when the run began. With ``fresh``, a run that is there is removed, whatever its identity.

    Raises TrainError where the folder holds something else or a run of another identity.
    """
    if not folder.exists() or (folder.is_dir() and all(map(_unfinished, folder.iterdir()))):
        return None
    path = folder / RECORD
    if not path.is_file():
        raise TrainError(
            f"{folder} exists already and holds no training run; choose another folder with --out."
        )
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        config, data, _ = dict(record["config"]), record["data"], record["normalization"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise TrainError(
            f"{path} is not the record of a training run; choose another folder with --out."
        ) from error
    if fresh:
        # A result left behind would make the new run look finished.
        result = f"{Path(str(config.get('name'))).name}.safetensors"
        for name in (result, LAST, BEST, RECORD):
            (folder / name).unlink(missing_ok=True)
        for part in (LOGS, CACHE):
            shutil.rmtree(folder / part, ignore_errors=True)
        return None
    way_out = "Go back to that, choose another folder with --out, or start over with --fresh."
    wanted = json.loads(json.dumps(identity))
    known = {key: value for key, value in (defaults or {}).items() if key in wanted["config"]}
    config = {**known, **config}
    changed = [
        f"{key} was {config.get(key)} and is {wanted['config'].get(key)}"
        for key in sorted(config.keys() | wanted["config"].keys())
        if config.get(key) != wanted["config"].get(key)
    ]
    if changed:
        raise TrainError(f"{folder} holds a run with another config: {'; '.join(changed)}. {way_out}")
    if data != wanted["data"]:
        raise TrainError(
            f"{folder} holds a run on other data: the store is another one or its hours have changed since. "
            f"{way_out}"
        )
    return dict(record)


def tidy(folder: Path) -> None:
    """Remove what a kill in the middle of writing a file has left."""
    for path in folder.glob(".*.partial"):
        path.unlink(missing_ok=True)


def _unfinished(path: Path) -> bool:
    return path.name.startswith(".") and path.name.endswith(".partial")


def begin_run(folder: Path, record: Mapping[str, Any]) -> None:
    """Make the folder and write the record of a new run, under a temporary name first."""
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        with replacing(folder / RECORD) as temporary:
            temporary.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


def code_version() -> str:
    """Version of the program, with the git commit where it runs from a clone: "0.1.0 (commit 1a2b3c4d)"."""
    folder = Path(__file__).resolve().parent
    try:
        commit = subprocess.run(
            ["git", "describe", "--always", "--dirty", "--abbrev=12", "--match="],
            cwd=folder,
            capture_output=True,
            text=True,
            timeout=10,
            check=True,
        ).stdout.strip()
        tracked = subprocess.run(
            ["git", "ls-files", "--error-unmatch", Path(__file__).name],
            cwd=folder,
            capture_output=True,
            timeout=10,
        )
    except (OSError, subprocess.SubprocessError):
        return __version__
    # An installed copy may lie inside a clone of something else.
    return f"{__version__} (commit {commit})" if commit and tracked.returncode == 0 else __version__
