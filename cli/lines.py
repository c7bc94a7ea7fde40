"""What is translated: lines of standard input or of a file, in chunks."""

from __future__ import annotations

import io
import itertools
import os
import queue
import stat
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from nmt.partial import Chunk

# Lines of a file that are translated together, and saved together under --output; the first few so that one
# need not wait for many.
CHUNK_LINES = 2000
FIRST_CHUNKS = (32, 256)
GPU_CHUNK_LINES = 20_000  # a GPU wants many at once, and has done as many in seconds


def chunk_sizes(most: int | None = None) -> Iterator[int]:
    """Of chunks, one after the other: FIRST_CHUNKS, then `most`, or CHUNK_LINES."""
    return itertools.chain(FIRST_CHUNKS, itertools.repeat(most or CHUNK_LINES))


_Arrived = str | BaseException | None


class Lines:
    """The input, in chunks of what is there: few lines when they are typed, many when they are at hand."""

    def __init__(self, source: str, *, count: bool = False):
        """A missing or unreadable file is an error now, not after the model is loaded.

        Args:
            source: a file, plain or .gz; `-` is standard input.
            count: read a file once to know its `total`.

        Raises:
            UserError: it cannot be read.
        """
        from nmt.data.corpus import display_name, open_bytes, read_raw_lines

        self.source = source
        self.name = display_name(source)
        self.typed = source == "-" and sys.stdin is not None and sys.stdin.isatty()
        self.is_file = source != "-" and Path(source).is_file()
        self.total: int | None = None
        self._arriving: queue.Queue[_Arrived] | None = None  # where lines have to be waited for
        readable_twice = self.is_file or Path(source).is_dir() or not Path(source).exists()
        if source != "-" and readable_twice:  # a pipe is not
            with open_bytes(source) as stream:
                stream.read(1)
            if count:
                self.total = sum(1 for _ in read_raw_lines(source))

    def at_hand(self) -> bool:
        """Whether the next chunk comes without waiting for anybody."""
        return self._arriving is None or not self._arriving.empty()

    def chunks(self, size: int | None = None, most: int | None = None) -> Iterator[Chunk]:
        """Chunks of a file have `size` lines, of other input at most so many: what has arrived.

        Without a size they have those of `chunk_sizes`.

        Raises:
            UserError: a line is not UTF-8; the lines before it have been yielded.
        """
        waits = not (_is_redirected_file() if self.source == "-" else self.is_file)
        sizes = chunk_sizes(most) if size is None else itertools.repeat(size)
        if waits:
            self._arriving = queue.Queue(maxsize=4 * GPU_CHUNK_LINES)
            threading.Thread(target=_read, args=(self.source, self._arriving), daemon=True).start()
        first = 1
        arriving = self._arriving
        for lines in _of_file(self.source, sizes) if arriving is None else _taken(arriving, sizes):
            yield first, lines
            first += len(lines)


def _is_redirected_file() -> bool:
    """Whether standard input is a file, of which everything is there at once."""
    try:
        return stat.S_ISREG(os.fstat(sys.stdin.fileno()).st_mode)
    except (OSError, io.UnsupportedOperation, AttributeError):
        return False


def _of_file(source: str, sizes: Iterator[int]) -> Iterator[list[str]]:
    from nmt.data.corpus import read_lines
    from nmt.errors import UserError

    chunk: list[str] = []
    size = next(sizes)
    error = None
    try:
        for line in read_lines(source):
            chunk.append(line)
            if len(chunk) == size:
                yield chunk
                chunk, size = [], next(sizes)
    except UserError as found:
        error = found
    if chunk:
        yield chunk
    if error is not None:
        raise error


def _read(source: str, arriving: queue.Queue[_Arrived]) -> None:
    """All lines, then what ended them: None or an error."""
    from nmt.data.corpus import read_lines

    try:
        for line in read_lines(source):
            arriving.put(line)
        arriving.put(None)
    except BaseException as error:
        arriving.put(error)


def _taken(arriving: queue.Queue[_Arrived], sizes: Iterator[int]) -> Iterator[list[str]]:
    """Waits for one line, then takes all that have arrived."""
    end: BaseException | None = None
    ended = False
    while not ended:
        chunk: list[str] = []
        size = next(sizes)
        while len(chunk) < size:
            try:
                item = arriving.get(block=not chunk)
            except queue.Empty:
                break
            if item is None or isinstance(item, BaseException):
                ended, end = True, item
                break
            chunk.append(item)
        if chunk:
            yield chunk
    if end is not None:
        raise end
