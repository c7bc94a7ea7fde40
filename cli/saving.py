"""`--output FILE`: what one process translates, saved chunk by chunk; what is said of it."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, NoReturn

from nmt.cli import output as out
from nmt.cli.lines import Lines
from nmt.cli.progress import Progress
from nmt.cli.translation import Options, Translating
from nmt.errors import InterruptedRun, UserError, counted, writing_to
from nmt.partial import NotContinued, PartialFile, partial_of, remove_parts


def save(translating: Translating, lines: Lines, target: Path, *, restart: bool) -> None:
    """Translate into `target`, which has its name when it is whole."""
    settings = {"processes": 1, **translating.settings()}
    partial = PartialFile(partial_of(target), settings, packed=target.suffix == ".gz", restart=restart)
    try:
        if partial.is_new:
            remove_parts(target)
        if partial.lines:
            continuing(partial.lines, partial.path)
        progress = Progress(lines.total, begun=partial.lines, shown=not lines.typed)
        translating.tell(progress.found)
        tell_typed(lines)
        rest = partial.rest(lines.chunks(most=translating.most_lines))
        with closing(translating.translate(rest, lines.at_hand)) as translated:
            for (_, sources), records in translated:
                partial.append(records, sources)
                progress.show(partial.lines)
        progress.end()
        partial.finish(target)
    except BaseException as error:
        partial.close()
        raise kept(error, partial.lines, partial.path, translating.options) from None


def stream(translating: Translating, lines: Lines, file: Any, name: str) -> None:
    """Translate into what is no file to be continued: standard output, a pipe, a device, called `name`."""
    progress = Progress(lines.total, shown=not lines.typed)
    translating.tell(progress.found)
    tell_typed(lines)
    chunks = lines.chunks(most=translating.most_lines)
    with closing(translating.translate(chunks, lines.at_hand)) as translated:
        for (first, sources), records in translated:
            with writing_to(name):
                file.write(records)
                file.flush()
            progress.show(first - 1 + len(sources))
    progress.end()


def tell_typed(lines: Lines) -> None:
    """Who types has to know that it is their turn."""
    if lines.typed:
        out.note("reading lines from the terminal; end with Ctrl-D")


def continuing(lines: int, partial: Path) -> None:
    out.note(f"continuing after {lines:,} lines, which are in {partial}")


def kept(error: BaseException, lines: int, partial: Path, options: Options) -> BaseException:
    """The error that ends a translation, saying what is left of it."""
    if not lines or isinstance(error, NotContinued):
        return error
    count = f"{counted(lines, 'line')} {'is' if lines == 1 else 'are'}"
    on = f"{count} translated, in {partial}: the same command goes on after that"
    if isinstance(error, KeyboardInterrupt):
        return InterruptedRun(f"interrupted; {on}", signal.SIGINT)
    if isinstance(error, InterruptedRun):
        return InterruptedRun(f"{error}; {on}", error.exit_code - 128)
    if isinstance(error, UserError):
        guides = list(map(str, options.guiding.files.values()))
        if error.file in guides:  # what is begun is of the file as it is
            on = f"{count} translated, in {partial}: with that file changed, --restart begins anew"
        else:
            on = f"{count} translated, in {partial}: once that is mended, the same command goes on after them"
        told = UserError(f"{error.message}; {on}", file=error.file, line=error.line)
        return told.with_traceback(error.__traceback__)
    out.note(f"nmt: {on}")
    return error


@contextmanager
def terminable() -> Iterator[None]:
    """SIGTERM ends what is done here in order."""

    def terminate(number: int, _: object) -> NoReturn:
        raise InterruptedRun("terminated", number)

    try:
        previous = signal.signal(signal.SIGTERM, terminate)
    except ValueError:  # not the main thread
        yield
        return
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, previous)
