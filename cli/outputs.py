"""Files that a command writes beside what it prints: tried before the work, and none lost with another."""

from __future__ import annotations

import gzip
from collections.abc import Callable, Iterable
from pathlib import Path

from nmt.cli import output as out
from nmt.errors import UserError


def packed(path: Path, text: str) -> bytes:
    """What goes into a file of that name: packed where it ends in .gz."""
    data = text.encode()
    return gzip.compress(data, mtime=0) if path.suffix == ".gz" else data


def check_new(option: str, path: Path, inputs: Iterable[str | Path]) -> None:
    """UserError where `path` is an input or cannot be written. A folder that is missing is made."""
    out.refuse_standard_output(path, option)
    if path.is_dir():
        raise UserError(f"is a folder; name a file with {option}", file=path)
    given = [Path(file) for file in inputs if str(file) != "-"]
    if any(path.exists() and file.exists() and path.samefile(file) for file in given):
        raise UserError(f"is an input too; choose another {option}", file=path)
    try:
        path.resolve().parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"cannot be written ({error.strerror}); choose another {option}", file=path) from None
    out.check_writable(path, option)


class Outputs:
    """The files of a command that writes several.

    Args:
        files: by the options that name them; None is not asked for.
        inputs: that they may not take the place of.

    Raises:
        UserError: one cannot be written, is an input, or has two options.
    """

    def __init__(self, files: dict[str, Path | None], inputs: Iterable[str | Path]):
        known: dict[Path, str] = {}
        inputs = list(inputs)
        for option, path in files.items():
            if path is None:
                continue
            check_new(option, path, inputs)
            place = path.resolve()
            if place in known and (place.is_file() or not place.exists()):
                raise UserError(f"is written by {known[place]} too; choose another {option}", file=path)
            known[place] = option
        self._failed: list[UserError] = []

    def write(self, path: Path | None, text: str) -> None:
        """Text, packed where the name ends in .gz."""
        from nmt.files import write_file

        if path is not None:
            self.attempt(path, lambda: write_file(path, packed(path, text)))

    def attempt(self, path: Path, work: Callable[[], None]) -> None:
        """Write a file. What goes wrong is told by `finish`, after all else has been done."""
        try:
            work()
        except OSError as error:
            self._failed.append(
                UserError(
                    f"could not be written ({error.strerror or error}); what else was asked for is done",
                    file=path,
                )
            )
        except UserError as error:
            self._failed.append(error)

    def finish(self) -> None:
        """Raises:
        UserError: the first file that could not be written; the others have been warned of.
        """
        for error in self._failed[1:]:
            out.warn(str(error))
        if self._failed:
            raise self._failed[0]
