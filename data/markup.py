"""Lines of text out of the markup that shared tasks publish: one line a sentence, in order.

Formats, as ``format`` of a corpus's file names them:

- ``plain``: lines as they are. Bytes that are not UTF-8, of which crawled text has some, become U+FFFD.
- ``tags``: IWSLT's ``train.tags.*``. A line that is a tag (``<url>``, ``<keywords>`` and others) is none of
  the text; ``<title>`` and ``<description>``, which both languages have, are lines without their tags.
- ``segments``: the ``.sgm`` of WMT and the ``.xml`` of IWSLT, neither of which need be well-formed: what
  stands in ``<seg>``, its references (``&amp;``, ``&#8217;``) decoded, blanks in a row as one. A segment
  without text is a blank line.

A line ends at the byte ``\\n``, one carriage return before it taken off.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from nmt.data.corpus import BYTE_ORDER_MARK
from nmt.data.unpack import Source
from nmt.errors import UserError

MOST_LINE_BYTES = 16 << 20
READ_BYTES = 1 << 18

_TITLE = re.compile(r"\s*<(title|description)>(.*?)(?:</\1>\s*)?", re.IGNORECASE | re.DOTALL)
_TAG = re.compile(
    r"\s*</?(?:url|keywords|speaker|talkid|translator|reviewer|doc|refset|srcset|tstset|mteval|file|xml|content)"
    r"\b",
    re.IGNORECASE,
)
_OPEN = re.compile(r"<seg\b[^<>]*>", re.IGNORECASE)
_EDGE = re.compile(r"<seg\b[^<>]*>|</seg\s*>", re.IGNORECASE)
_REFERENCE = re.compile(r"&(?:#([0-9]{1,7})|#[xX]([0-9a-fA-F]{1,6})|(amp|lt|gt|quot|apos));")
_NAMED = {"amp": "&", "lt": "<", "gt": ">", "quot": '"', "apos": "'"}


@dataclass
class Text:
    """The lines of a file, and what was found on the way.

    Args:
        source: its bytes.
        format: one of `FORMATS`.
        file: named in errors.
    """

    source: Source
    format: str
    file: str
    repaired: int = 0  # lines with bytes that are not UTF-8

    def __iter__(self) -> Iterator[str]:
        return FORMATS[self.format](self)

    def raw(self) -> Iterator[tuple[int, str]]:
        """Lines of the file itself, each with its number from 1.

        Raises:
            UserError: a line of more than `MOST_LINE_BYTES`; in markup, bytes that are not UTF-8.
        """
        for number, line in enumerate(_split(self.source, self.file), start=1):
            line = line.removeprefix(BYTE_ORDER_MARK) if number == 1 else line
            line = line.removesuffix(b"\r")
            try:
                yield number, line.decode()
            except UnicodeDecodeError as error:
                if self.format != "plain":
                    raise UserError(
                        f"byte {error.start + 1} is not valid UTF-8; is it the right file? fetch it again",
                        file=self.file,
                        line=number,
                    ) from None
                self.repaired += 1
                yield number, line.decode(errors="replace")


def decode_references(text: str) -> str:
    """``&lt;`` and the like as characters, once: ``&amp;lt;`` is ``&lt;``. What is none stays as it is.

    A reference to a control character, such as a line end, is a blank: a line stays one line.
    """

    def character(match: re.Match[str]) -> str:
        decimal, hexadecimal, name = match.groups()
        if name:
            return _NAMED[name]
        number = int(decimal) if decimal else int(hexadecimal, 16)
        if number > 0x10FFFF or 0xD800 <= number < 0xE000:
            return match[0]
        return " " if number < 32 or 127 <= number < 160 else chr(number)

    return _REFERENCE.sub(character, text)


def _split(source: Source, file: str) -> Iterator[bytes]:
    """Lines at ``\\n``, without it; the last may lack it."""
    held, number = b"", 1
    while chunk := source.read(READ_BYTES):
        *lines, held = (held + chunk).split(b"\n")
        yield from lines
        number += len(lines)
        if len(held) > MOST_LINE_BYTES:
            raise UserError(
                f"a line of more than {MOST_LINE_BYTES >> 20} MiB is no sentence; is it the right file?",
                file=file,
                line=number,
            )
    if held:
        yield held


def _plain(text: Text) -> Iterator[str]:
    for number, line in text.raw():
        # What a server says in place of a file that it does not have.
        if number == 1 and re.match(r"\s*<(!doctype\s+html|html)\b", line, re.IGNORECASE):
            raise UserError("it is a web page, no text; fetch it from another place", file=text.file)
        yield line


def _tags(text: Text) -> Iterator[str]:
    for _, line in text.raw():
        if title := _TITLE.fullmatch(line):
            yield title[2].strip()
        elif not _TAG.match(line):
            yield line.strip()


def _segments(text: Text) -> Iterator[str]:
    held: list[str] = []
    opened: int | None = None  # the line in which the segment begins
    number = 0
    for number, line in text.raw():
        place = 0
        for edge in _EDGE.finditer(line):
            opens = _OPEN.fullmatch(edge[0]) is not None
            if opens == (opened is not None):
                what = "a segment begins before the one of line {} ends" if opens else "a segment ends twice"
                raise UserError(f"{what.format(opened)}; correct the file", file=text.file, line=number)
            if opens:
                opened, held = number, []
            else:
                held.append(line[place : edge.start()])
                yield " ".join(decode_references(" ".join(held)).split())
                opened = None
            place = edge.end()
        if opened is not None:
            held.append(line[place:])
    if opened is not None:
        raise UserError(
            "the segment that begins here does not end; fetch it again", file=text.file, line=opened
        )
    if not number:
        raise UserError("the file is empty; fetch it again", file=text.file)


FORMATS: dict[str, Callable[[Text], Iterator[str]]] = {"plain": _plain, "tags": _tags, "segments": _segments}
