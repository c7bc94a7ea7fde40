"""Lines out of what shared tasks publish."""

from __future__ import annotations

import io
import re
from xml.sax.saxutils import escape

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nmt.data import markup
from nmt.data.markup import Text, decode_references
from nmt.errors import UserError


def lines(content: bytes | str, format: str) -> list[str]:
    data = content.encode() if isinstance(content, str) else content
    return list(Text(io.BytesIO(data), format, "f.sgm"))


SGM = """\
<srcset setid="newstest2014" srclang="any">
<doc sysid="ref" docid="1" genre="news" origlang="en">
<hl>
<seg id="1">A headline</seg>
</hl>
<p>
<seg id="2"> Fish &amp; chips &lt;b&gt; cost &#163;5,  &quot;they&apos;re&quot; &#x2014; </seg>
<seg id="3"></seg>
<SEG ID="4">two</SEG><seg id="5">on a line</seg>
<seg id="6">over
two lines</seg>
</p>
</doc>
</srcset>
"""
SEGMENTS = [
    "A headline",
    'Fish & chips <b> cost £5, "they\'re" —',
    "",
    "two",
    "on a line",
    "over two lines",
]


@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_segments(end: str) -> None:
    assert lines(SGM.replace("\n", end), "segments") == SEGMENTS
    assert lines("\ufeff" + SGM.replace("\n", end), "segments") == SEGMENTS


def test_segments_of_one_long_line() -> None:
    assert lines(SGM.replace("\n", " "), "segments") == SEGMENTS


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('<seg id="1">a</seg>\n<seg id="2">b\n', "f.sgm:2: the segment that begins here does not end"),
        ('<seg id="1">a\n<seg id="2">b</seg>\n', "f.sgm:2: a segment begins before the one of line 1 ends"),
        ('<seg id="1">a</seg></seg>\n', "f.sgm:1: a segment ends twice"),
        ("", "f.sgm: the file is empty"),
    ],
)
def test_segments_that_are_broken(text: str, message: str) -> None:
    with pytest.raises(UserError) as caught:
        lines(text, "segments")
    assert str(caught.value).startswith(message)


@given(st.lists(st.text(st.characters(exclude_categories=["Cs", "Cc"]))), st.booleans())
def test_segments_come_back(texts: list[str], numbers: bool) -> None:
    """Escaped by someone else, or every character by its number."""

    def written(text: str) -> str:
        return "".join(f"&#{ord(c)};" for c in text) if numbers else escape(text)

    document = "<doc>\n" + "".join(f'<seg id="{i}">{written(t)}</seg>\n' for i, t in enumerate(texts))
    assert lines(document, "segments") == [" ".join(text.split()) for text in texts]


@given(st.binary())
def test_segments_of_anything(data: bytes) -> None:
    try:
        found = lines(b"<seg>" + data, "segments")
    except UserError:
        return
    assert all("\n" not in line for line in found)


@pytest.mark.parametrize(
    ("text", "decoded"),
    [
        ("&amp;lt;", "&lt;"),
        ("AT&T &copy &unknown; &; &#; &#x;", "AT&T &copy &unknown; &; &#; &#x;"),
        ("a&#10;b&#13;c&#0;d&#133;e", "a b c d e"),
        ("&#xD800; &#1114112; &#9999999;", "&#xD800; &#1114112; &#9999999;"),
        ("&#8217;&#x1F600;", "’😀"),
    ],
)
def test_references(text: str, decoded: str) -> None:
    assert decode_references(text) == decoded


TAGS = """\
<url>http://www.example.org/talks/1</url>
<keywords>talks, one</keywords>
<speaker>A. Person</speaker>
<talkid>1</talkid>
<title>A. Person: A title</title>
<description>What it is
about.</description>
 A sentence.

<i>Marked</i> text is text, and 3 < 4.
<reviewer href="x">R</reviewer>
<translator href="x">T</translator>
The last one"""


@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_tags(end: str) -> None:
    text = TAGS.replace("it is\nabout", "it is about").replace("\n", end)
    assert lines(text, "tags") == [
        "A. Person: A title",
        "What it is about.",
        "A sentence.",
        "",
        "<i>Marked</i> text is text, and 3 < 4.",
        "The last one",
    ]


def test_plain_keeps_lines_and_counts_what_it_repairs() -> None:
    text = Text(io.BytesIO(b"\xef\xbb\xbfa\xe2\x80\xa8b\r\n\n\xff\xfe c\r\r\n d \nlast"), "plain", "f")
    assert list(text) == ["a\u2028b", "", "\ufffd\ufffd c\r", " d ", "last"]
    assert text.repaired == 1
    with pytest.raises(UserError, match=r"f.sgm:2: byte 1 is not valid UTF-8"):
        lines(b"<doc>\n\xff", "segments")


def test_plain_is_no_web_page() -> None:
    with pytest.raises(UserError, match="web page"):
        lines("<!DOCTYPE html>\n<html>404", "plain")


@given(st.lists(st.binary().filter(lambda raw: b"\n" not in raw)), st.integers(1, 50))
def test_lines_end_at_newlines_alone(raws: list[bytes], size: int) -> None:
    data = b"".join(raw + b"\n" for raw in raws)
    source = io.BytesIO(data)

    class Slow:
        def read(self, _: int = 0) -> bytes:
            return source.read(size)

    found = list(Text(Slow(), "plain", "f")) if not re.match(rb"\s*<", data) else None
    if found is not None:
        assert len(found) == len(raws)


def test_a_line_without_end_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(markup, "MOST_LINE_BYTES", 1 << 20)
    with pytest.raises(UserError, match=r"f.sgm:2: a line of more than 1 MiB"):
        lines(b"a\n" + bytes(3 << 20), "plain")
