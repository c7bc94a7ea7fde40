"""Download the files of a public corpus, or copy them from a mirror, and verify every byte.

A file is written under ``NAME.part`` and takes its name once its SHA-256 is right, so a file that is
there is whole. A transfer that broke off goes on where it stopped, in this call or the next one.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from nmt.data.corpus import sha256_of
from nmt.data.registry import CorpusFile, load_corpus
from nmt.errors import UserError

if TYPE_CHECKING:
    from http.client import HTTPResponse

# Called with the file's name, the bytes that are there, and the bytes expected, if known.
Progress = Callable[[str, int, int | None], None]

ATTEMPTS = 5
FIRST_WAIT_SECONDS = 1.0
TIMEOUT_SECONDS = 30.0
CHUNK_BYTES = 1 << 16
# Answers that another attempt may change.
PASSING_TROUBLE = frozenset({408, 425, 429, 500, 502, 503, 504})


def fetch(
    corpus: str | Path,
    folder: str | Path | None = None,
    *,
    languages: Sequence[str] | None = None,
    mirror: str | Path | None = None,
    progress: Progress | None = None,
    sleep: Callable[[float], None] = time.sleep,
) -> list[Path]:
    """Bring the files of a corpus into a folder; those already there and right are left alone.

    Args:
        corpus: a name in the registry, or the path of a ``.toml`` description.
        folder: where the files go; ``corpora/NAME`` if not given.
        languages: only the files in these languages; all if not given.
        mirror: a folder, or an http or https URL, that holds the files under their names.
        progress: see `Progress`.
        sleep: waits between attempts, in seconds.

    Returns:
        The paths of the files, in the registry's order.

    Raises:
        UserError: unknown corpus or language; a file not to be had, or not the expected one.
    """
    entry = load_corpus(corpus)
    for language in languages or ():
        if language not in entry.languages:
            raise UserError(
                f"{entry.name} has no files in {language}; choose from {', '.join(entry.languages)}"
            )
    wanted = [file for file in entry.files if languages is None or file.language in languages]
    folder = Path("corpora") / entry.name if folder is None else Path(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with _one_at_a_time(folder):
            return [_fetch_file(file, folder, mirror, progress, sleep) for file in wanted]
    except OSError as error:
        reason = error.strerror or str(error)
        raise UserError(
            f"it cannot be written ({reason}); make room or choose another folder", file=folder
        ) from None


def _fetch_file(
    file: CorpusFile,
    folder: Path,
    mirror: str | Path | None,
    progress: Progress | None,
    sleep: Callable[[float], None],
) -> Path:
    final, part = folder / file.name, folder / f"{file.name}.part"

    def show(received: int, expected: int | None) -> None:
        if progress is not None:
            progress(file.name, received, expected if file.bytes is None else file.bytes)

    if final.exists():
        if sha256_of(final) == file.sha256:
            show(final.stat().st_size, final.stat().st_size)
            return final
        # Perhaps someone's own edit: out of the way, not gone.
        final.replace(folder / f"{file.name}.bad")
    origin = _origin(file, mirror)
    resumed = False
    if isinstance(origin, Path):
        _copy(origin, part, show)
    # A part that is whole already was only not renamed in time.
    elif not (part.exists() and sha256_of(part) == file.sha256):
        resumed = part.exists()
        _download(origin, part, show, sleep)
    received = sha256_of(part)
    if received != file.sha256 and resumed:
        # The start may be that of another version of the file; once more, from nothing.
        part.unlink()
        _download(str(origin), part, show, sleep)
        received = sha256_of(part)
    if received != file.sha256:
        part.unlink()
        raise UserError(
            f"{origin} is not the expected file: sha256 {file.sha256} expected, {received} received; "
            "try again, or name another place with --mirror DIR_OR_URL",
            file=final,
        )
    part.replace(final)
    _flush_folder(folder)
    return final


def _origin(file: CorpusFile, mirror: str | Path | None) -> str | Path:
    """The URL or the path that a file comes from."""
    if mirror is None:
        return file.url
    if "://" not in str(mirror):
        folder = Path(mirror)
        if not folder.is_dir():
            raise UserError("the mirror is no folder; give a folder or an http or https URL", file=folder)
        return folder / file.name
    if not str(mirror).startswith(("http://", "https://")):
        raise UserError(f"the mirror {mirror} is neither http nor https; give such a URL or a folder")
    return f"{str(mirror).rstrip('/')}/{file.name}"


def _copy(origin: Path, part: Path, show: Callable[[int, int | None], None]) -> None:
    try:
        source = origin.open("rb")
    except OSError as error:
        reason = error.strerror or str(error)
        raise UserError(
            f"it cannot be had from the mirror ({reason}); put it there, or leave --mirror out", file=origin
        ) from None
    with source, part.open("wb") as sink:
        total = origin.stat().st_size
        while chunk := source.read(CHUNK_BYTES):
            sink.write(chunk)
            show(sink.tell(), total)
        _flush(sink)


def _download(
    url: str, part: Path, show: Callable[[int, int | None], None], sleep: Callable[[float], None]
) -> None:
    """Make `part` as long as the server says the file is, however many attempts that takes."""
    for attempt in range(1, ATTEMPTS + 1):
        try:
            _transfer(url, part, show)
            return
        except _BrokenOffError as error:
            if attempt == ATTEMPTS:
                raise UserError(
                    f"{url} cannot be fetched ({error}, {ATTEMPTS} attempts); check the network and run the "
                    "same command again, it goes on where it stopped, or name another place with "
                    "--mirror DIR_OR_URL"
                ) from None
            sleep(FIRST_WAIT_SECONDS * 2 ** (attempt - 1))


class _BrokenOffError(Exception):
    """A transfer that may go well next time."""


def _transfer(url: str, part: Path, show: Callable[[int, int | None], None]) -> None:
    """One request, appending to what `part` holds if the server can start there.

    Raises:
        _BrokenOffError: no answer, or one that ended too early; what came is kept.
        UserError: the server refuses.
    """
    held = part.stat().st_size if part.exists() else 0
    response = _request(url, held)
    if response is None:
        # The server has no byte after those held: whole, or not this file. The checksum decides.
        return
    with response, part.open("ab" if response.status == 206 else "wb") as sink:
        if response.status != 206:
            held = 0
        length = response.headers.get("Content-Length")
        expected = held + int(length) if length and length.isdigit() else None
        try:
            for chunk in _chunks(response):
                sink.write(chunk)
                held += len(chunk)
                show(held, expected)
        finally:
            _flush(sink)
    if expected is not None and held < expected:
        raise _BrokenOffError(f"it broke off after {held} of {expected} bytes")


def _request(url: str, held: int) -> HTTPResponse | None:
    """The open answer to a GET from byte `held` on, or None if there is nothing from there on."""
    # urllib takes its time to import, and `nmt --help` has none.
    from http.client import HTTPException
    from urllib.error import HTTPError
    from urllib.request import Request, urlopen

    # Identity: the bytes as stored are what the checksum is of.
    headers = {"User-Agent": "nmt", "Accept-Encoding": "identity"}
    if held:
        headers["Range"] = f"bytes={held}-"
    try:
        response: HTTPResponse = urlopen(Request(url, headers=headers), timeout=TIMEOUT_SECONDS)
    except HTTPError as error:
        error.close()
        if error.code == 416 and held:
            return None
        answer = f"{error.code} {error.reason}"
        if error.code in PASSING_TROUBLE:
            raise _BrokenOffError(f"the server answers {answer}") from None
        raise UserError(
            f"{url} is not to be had, the server answers {answer}; "
            "name another place with --mirror DIR_OR_URL"
        ) from None
    except (OSError, HTTPException, ValueError) as error:
        raise _BrokenOffError(str(getattr(error, "reason", None) or error or type(error).__name__)) from None
    if response.status == 206 and not response.headers.get("Content-Range", "").startswith(f"bytes {held}-"):
        response.close()
        raise _BrokenOffError("the server sent another part than asked for")
    return response


def _chunks(response: HTTPResponse) -> Iterator[bytes]:
    from http.client import HTTPException

    while True:
        try:
            chunk = response.read(CHUNK_BYTES)
        except (OSError, HTTPException) as error:
            raise _BrokenOffError(str(error) or type(error).__name__) from None
        if not chunk:
            return
        yield chunk


@contextmanager
def _one_at_a_time(folder: Path) -> Iterator[None]:
    """Two recipes may want the same corpus at once: the second waits, then finds it there."""
    try:
        import fcntl
    except ImportError:  # not on this system: the checksum still stands guard
        yield
        return
    with (folder / ".lock").open("ab") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _flush(sink: BinaryIO) -> None:
    sink.flush()
    os.fsync(sink.fileno())


def _flush_folder(folder: Path) -> None:
    """Make a rename last; where folders cannot be opened, the system sees to it."""
    try:
        descriptor = os.open(folder, os.O_RDONLY)
    except OSError:
        return
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
