"""Files from the network: compared with their published SHA-256, and whole or not there."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from tqdm import tqdm

from neuralmech.data.sources import Remote
from neuralmech.errors import UserError, chain

CHUNK = 1 << 20  # bytes
TIMEOUT = 30.0  # seconds without a byte before the next mirror is tried
HEADERS = {"User-Agent": "neuralmech", "Accept-Encoding": "identity"}  # the bytes whose checksum is published
INCOMPLETE = "incomplete, or another file than the one published"


def data_folder(folder: str | None, name: str) -> Path:
    """Where a data set's files are: below `folder`, ``$NEURALMECH_DATA``, or the user's cache."""
    chosen = folder or os.environ.get("NEURALMECH_DATA")
    if chosen:
        return Path(chosen).expanduser() / name
    cache = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(cache).expanduser() / "neuralmech" / name


def fetch(remote: Remote, folder: Path) -> Path:
    """Path of the verified file in `folder`; downloads it if it is not there.

    What pooch does not do is done here: it takes one address, and would write over a file that is there and another,
    which may be the user's own.

    Raises
    ------
    UserError
        If the file that is there is damaged, no mirror has it, or it cannot be written.
    """
    path = folder / remote.name
    if path.exists():
        if _checksum(path) != remote.sha256:
            raise UserError(f"{path} is incomplete or damaged; delete it, and it will be downloaded again")
        return path
    failures = []
    for url in remote.urls:
        failure = _download(url, remote, path)
        if failure is None:
            return path
        failures.append(f"{url}: {failure}")
    raise UserError(
        f"{remote.name} cannot be downloaded ({'; '.join(failures)}); "
        f"check the network, put the file into {folder}, or set data.folder"
    )


def _checksum(path: Path) -> str:
    """SHA-256 of a file's content, in hexadecimal digits."""
    import pooch

    try:
        return pooch.file_hash(str(path), "sha256")
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}); choose another data.folder") from error


def _download(url: str, remote: Remote, path: Path) -> str | None:
    """Download a file from one address; returns why that does not give it, if it does not."""
    import pooch
    from requests import RequestException, exceptions

    pooch.get_logger().setLevel("WARNING")  # the progress bar says the rest

    def load(url: str, file: Any, _: object) -> None:
        Path(file).chmod(path.parent.stat().st_mode & 0o666)  # pooch's temporary files are for their owner alone
        with tqdm(total=1, unit="B", unit_scale=True, desc=remote.name, disable=None) as progress:
            pooch.HTTPDownloader(progress, CHUNK, timeout=TIMEOUT, headers=HEADERS)(url, file, None)

    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        pooch.retrieve(url, f"sha256:{remote.sha256}", path.name, path.parent, downloader=load)
    except (exceptions.ChunkedEncodingError, exceptions.ContentDecodingError):
        return INCOMPLETE
    except RequestException as error:  # which is an OSError
        return error.response.reason if error.response is not None else _reason(error)
    except OSError as error:
        raise _unwritable(path, error) from error
    except ValueError:  # of another checksum
        return INCOMPLETE
    return None


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
        raise _unwritable(path, error) from error
    finally:
        if path.parent.is_dir():  # it may not have come to be
            temporary.unlink(missing_ok=True)


def _unwritable(path: Path, error: OSError) -> UserError:
    return UserError(f"{path} cannot be written ({_reason(error)}); make room or choose another data.folder")


def _reason(error: BaseException) -> str:
    """What is behind an error, in the system's words."""
    *_, first = chain(error)
    return getattr(first, "strerror", None) or str(first) or type(first).__name__
