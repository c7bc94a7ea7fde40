"""Download the files of a public corpus, or copy them from a mirror, and verify every byte.

A file is written under ``NAME.part`` and takes its name once its SHA-256 is right, so a file that is
there is whole. A transfer that broke off goes on where it stopped, in this call or the next one. What the
registry has no SHA-256 for is held to the one that was recorded here the first time. Archives are unpacked.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from nmt.data.checksums import NAME as CHECKSUMS
from nmt.data.checksums import Checksums
from nmt.data.corpus import sha256_of
from nmt.data.extract import check_plain, extract, made_from
from nmt.data.mirror import gunzip, is_packed, places
from nmt.data.registry import Corpus, CorpusFile, load_corpus
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
    note: Callable[[str], None] | None = None,
    sleep: Callable[[float], None] = time.sleep,
) -> list[Path]:
    """Bring the files of a corpus into a folder; those already there and right are left alone.

    Args:
        corpus: a name in the registry, or the path of a ``.toml`` description.
        folder: where the files go; ``corpora/NAME`` if not given.
        languages: only the files in these languages; all if not given.
        mirror: a folder, or an http or https URL, that holds the files; see `nmt.data.mirror`.
        progress: see `Progress`.
        note: called with what is worth telling, such as a checksum that is now recorded.
        sleep: waits between attempts, in seconds.

    Returns:
        The paths of the text files, in the registry's order.

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
            sums = Checksums.read(folder)
            plain = [file for file in wanted if file.member is None]
            for file in plain:
                _fetch_file(file, folder, mirror, progress, sleep, sums)
            if new := [file for file in plain if file.sha256 is None and file.name not in sums.files]:
                try:
                    check_plain([*_beside(new, entry, folder), *new], folder)
                except UserError:
                    for file in new:  # nothing says that they are the right ones: out of the way
                        (folder / file.name).replace(folder / f"{file.name}.bad")
                    raise
                _record(new, folder, sums, note)
            for archive in entry.archives:
                texts = [file for file in wanted if file.member and file.member.archive == archive.name]
                if texts:
                    _fetch_texts(entry, archive, texts, folder, mirror, progress, note, sleep, sums)
            return [folder / file.name for file in wanted]
    except OSError as error:
        reason = error.strerror or str(error)
        raise UserError(
            f"it cannot be written ({reason}); make room or choose another folder", file=folder
        ) from None


def _beside(files: Sequence[CorpusFile], entry: Corpus, folder: Path) -> list[CorpusFile]:
    """Other sides of their splits that are there, perhaps since another day."""
    splits = {file.split for file in files}
    others = [file for file in entry.files if file.split in splits and file not in files]
    return [file for file in others if (folder / file.name).exists()]


def _fetch_texts(
    entry: Corpus,
    archive: CorpusFile,
    texts: list[CorpusFile],
    folder: Path,
    mirror: str | Path | None,
    progress: Progress | None,
    note: Callable[[str], None] | None,
    sleep: Callable[[float], None],
    sums: Checksums,
) -> None:
    """Bring an archive and make its texts; without it, where they are there and were made from it."""
    expected = archive.sha256 or sums.files.get(archive.name)
    if expected is not None and all(_is_right(text, expected, folder, sums) for text in texts):
        return
    path = _fetch_file(archive, folder, mirror, progress, sleep, sums)
    received = expected or sha256_of(path)
    todo = [text for text in texts if not _is_right(text, received, folder, sums)]

    def show(name: str, size: int) -> None:
        if progress is not None:
            progress(name, size, None)

    try:
        beside = _beside(todo, entry, folder)
        made = extract(path, todo, folder, beside=beside, progress=show, note=note)
    except UserError:
        if expected is None:  # nothing says that it is the right one: out of the way
            path.replace(folder / f"{archive.name}.bad")
        raise
    for text in todo:
        assert text.member is not None
        sums.texts[text.name] = (made[text.name], made_from(text.member, received))
    _record([archive] if expected is None else [], folder, sums, note)


def _is_right(text: CorpusFile, archive_sha256: str, folder: Path, sums: Checksums) -> bool:
    """Whether a text is there as it was made of this archive. What is not is put aside."""
    path = folder / text.name
    if not path.exists():
        return False
    recorded = sums.texts.get(text.name)
    assert text.member is not None
    if recorded == (sha256_of(path), made_from(text.member, archive_sha256)):
        return True
    path.replace(folder / f"{text.name}.bad")
    return False


def _record(
    files: Sequence[CorpusFile], folder: Path, sums: Checksums, note: Callable[[str], None] | None
) -> None:
    for file in files:
        sums.files[file.name] = sha256_of(folder / file.name)
        if note is not None:
            pin = f'sha256 = "{sums.files[file.name]}"'
            note(f"{file.name}: first download, recorded in {folder / CHECKSUMS}; to pin it: {pin}")
    sums.write()


def _fetch_file(
    file: CorpusFile,
    folder: Path,
    mirror: str | Path | None,
    progress: Progress | None,
    sleep: Callable[[float], None],
    sums: Checksums,
) -> Path:
    recorded = file.sha256 is None and file.name in sums.files
    file = replace(file, sha256=file.sha256 or sums.files.get(file.name))
    final, part = folder / file.name, folder / f"{file.name}.part"

    def show(received: int, expected: int | None) -> None:
        if progress is not None:
            progress(file.name, received, expected if file.bytes is None else file.bytes)

    if final.exists():
        if file.sha256 in (None, sha256_of(final)):
            show(final.stat().st_size, final.stat().st_size)
            return final
        # Perhaps someone's own edit: out of the way, not gone.
        final.replace(folder / f"{file.name}.bad")
    if file.sha256 is None:  # nothing would say that its beginning is of another version
        part.unlink(missing_ok=True)
    # A part that is whole already was only not renamed in time.
    if part.exists() and sha256_of(part) == file.sha256:
        origin: str | Path = part
        received = str(file.sha256)
    else:
        resumed = part.exists()
        origin = _bring(file, part, mirror, show, sleep)
        received = sha256_of(part)
        if file.sha256 not in (None, received) and resumed and not isinstance(origin, Path):
            # The start may be that of another version of the file; once more, from nothing.
            part.unlink()
            _bring(file, part, mirror, show, sleep)
            received = sha256_of(part)
    if file.sha256 not in (None, received):
        part.unlink()
        advice = f", or take its line out of {folder / CHECKSUMS} if another is right now" if recorded else ""
        raise UserError(
            f"{origin} is not the expected file: sha256 {file.sha256} expected, {received} received; "
            f"try again, or name another place with --mirror DIR_OR_URL{advice}",
            file=final,
        )
    part.replace(final)
    _flush_folder(folder)
    return final


def _bring(
    file: CorpusFile,
    part: Path,
    mirror: str | Path | None,
    show: Callable[[int, int | None], None],
    sleep: Callable[[float], None],
) -> str | Path:
    """Write a file to `part` from the first place that has it, and unpack it if need be; where that was."""
    origins: list[str | Path] = [file.url] if mirror is None else places(file, mirror)
    if isinstance(origins[0], Path):
        origins = [path for path in origins if Path(path).exists()] or origins[:1]
    for origin in origins:
        packed = part.with_name(f"{file.name}.gz.part") if is_packed(origin, file) else None
        try:
            if isinstance(origin, Path):
                _copy(origin, packed or part, show)
            else:
                _download(origin, packed or part, show, sleep)
        except _NotThereError as error:
            if origin == origins[-1]:
                raise UserError(str(error)) from None
            continue
        if packed is not None:
            try:
                with part.open("wb") as sink:
                    gunzip(packed, sink, limit=file.bytes, origin=origin)
                    _flush(sink)
            except UserError:
                part.unlink()
                raise
            finally:
                packed.unlink()  # damaged or done: a later call has no use for it
        return origin
    raise AssertionError("there is always a place to try")


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


class _NotThereError(Exception):
    """The server has no such file; another place may."""


class _BrokenOffError(Exception):
    """A transfer that may go well next time."""


def _transfer(url: str, part: Path, show: Callable[[int, int | None], None]) -> None:
    """One request, appending to what `part` holds if the server can start there.

    Raises:
        _BrokenOffError: no answer, or one that ended too early; what came is kept.
        _NotThereError: it has no such file, or does not let us know.
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
        message = (
            f"{url} is not to be had, the server answers {answer}; "
            "name another place with --mirror DIR_OR_URL"
        )
        raise (_NotThereError if error.code in (403, 404, 410) else UserError)(message) from None
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
