"""Files from the network: compared with their published SHA-256, and whole or not there."""

from __future__ import annotations

import hashlib
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path
from typing import BinaryIO
from urllib.request import Request, urlopen

from tqdm import tqdm

from neuralmech.errors import UserError

CHUNK = 1 << 20  # bytes
TIMEOUT = 30.0  # seconds without a byte before the next mirror is tried


@dataclass(frozen=True)
class Remote:
    """A file by its name, its published checksum, and where it can be had, best first."""

    name: str
    sha256: str
    urls: tuple[str, ...]


class _FailedError(Exception):
    """A mirror that does not give the file, and why."""


def data_folder(folder: str | None, name: str) -> Path:
    """Where a data set's files are: below `folder`, ``$NEURALMECH_DATA``, or the user's cache."""
    chosen = folder or os.environ.get("NEURALMECH_DATA")
    if chosen:
        return Path(chosen).expanduser() / name
    cache = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(cache).expanduser() / "neuralmech" / name


def fetch(remote: Remote, folder: Path) -> Path:
    """Path of the verified file in `folder`; downloads it if it is not there.

    Raises
    ------
    UserError
        If the file that is there is damaged, no mirror has it, or it cannot be written.
    """
    path = folder / remote.name
    if path.exists():
        if checksum(path) != remote.sha256:
            raise UserError(f"{path} is incomplete or damaged; delete it, and it will be downloaded again")
        return path
    failures = []
    for url in remote.urls:
        try:
            _download(url, remote, path)
            return path
        except _FailedError as error:
            failures.append(f"{url}: {error}")
    raise UserError(
        f"{remote.name} cannot be downloaded ({'; '.join(failures)}); "
        f"check the network, put the file into {folder}, or set data.folder"
    )


def checksum(path: Path) -> str:
    """SHA-256 of a file's content, in hexadecimal digits.

    Raises
    ------
    UserError
        If it cannot be read.
    """
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}); choose another data.folder") from error


@contextmanager
def whole(path: Path) -> Iterator[BinaryIO]:
    """A file to write that gets its name at the end, synced, or vanishes; processes do not disturb each other.

    Raises
    ------
    UserError
        If there is no room, or the folder cannot be written.
    """
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        raise UserError(
            f"{path} cannot be written ({error.strerror or error}); make room or choose another data.folder"
        ) from error
    finally:
        _remove(temporary)


def _remove(path: Path) -> None:
    """Delete what is left of a file; where its folder never came to be there is nothing."""
    if path.parent.is_dir():
        path.unlink(missing_ok=True)


def _download(url: str, remote: Remote, path: Path) -> None:
    digest = hashlib.sha256()
    with whole(path) as file:
        for chunk in _chunks(url, remote.name):
            file.write(chunk)
            digest.update(chunk)
        if digest.hexdigest() != remote.sha256:
            raise _FailedError("incomplete, or another file than the one published")


def _chunks(url: str, name: str) -> Iterator[bytes]:
    """The content behind an address; whatever goes wrong with the network is a `_FailedError`."""
    try:
        with (
            urlopen(Request(url, headers={"User-Agent": "neuralmech"}), timeout=TIMEOUT) as response,
            tqdm(total=response.length, unit="B", unit_scale=True, desc=name, disable=None) as progress,
        ):
            while chunk := response.read(CHUNK):
                yield chunk
                progress.update(len(chunk))
    except (OSError, HTTPException) as error:  # URLError and timeouts are OSErrors
        raise _FailedError(getattr(error, "reason", None) or str(error) or type(error).__name__) from error
