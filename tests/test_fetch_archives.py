"""Corpora out of archives, from mirrors; checksums that are recorded the first time."""

from __future__ import annotations

import gzip
import hashlib
from pathlib import Path

import pytest
from archives import pack

from nmt.data import registry
from nmt.data.checksums import Checksums
from nmt.data.fetch import fetch
from nmt.errors import UserError

EN = b"<title>A talk</title>\nOne.\n\nThree.\n"
DE = "<title>Ein Vortrag</title>\nEins.\n\nDreiß.\n".encode()
MEMBERS = {"c/train.tags.en": b"<url>u</url>\n" + EN, "c/train.tags.de": b"<url>u</url>\n" + DE}
TEXTS = {"train.en": "A talk\nOne.\n\nThree.\n", "train.de": "Ein Vortrag\nEins.\n\nDreiß.\n"}


def describe(folder: Path, *, pin: str = "", texts: str = "") -> Path:
    """A corpus of one archive and, beside it, one plain pair of files."""
    text = (
        'name = "talks"\ndescription = "d"\nhomepage = "h"\nlicence = "l"\nlanguages = ["en", "de"]\n'
        f'base_url = "https://example.org/"\n[[archives]]\nname = "c.tgz"\n{pin}\n'
    )
    for language in ("en", "de"):
        text += f'[[files]]\nname = "train.{language}"\nsplit = "train"\nlanguage = "{language}"\n'
        text += f'archive = "c.tgz"\nmember = "c/train.tags.{language}"\nformat = "tags"\n'
        text += f'[[files]]\nname = "test.{language}"\nsplit = "test"\nlanguage = "{language}"\n'
    path = folder / "talks.toml"
    path.write_text(text + texts)
    return path


@pytest.fixture
def mirror(tmp_path: Path) -> Path:
    folder = tmp_path / "mirror"
    pack(folder / "c.tgz", MEMBERS)
    (folder / "test.en").write_bytes(b"a\nb\n")
    (folder / "test.de").write_bytes(b"c\nd\n")
    return folder


def test_texts_and_records(tmp_path: Path, mirror: Path) -> None:
    notes: list[str] = []
    paths = fetch(describe(tmp_path), tmp_path / "c", mirror=mirror, note=notes.append)
    assert [path.name for path in paths] == ["train.en", "test.en", "train.de", "test.de"]
    assert {name: (tmp_path / "c" / name).read_text() for name in TEXTS} == TEXTS
    archive = hashlib.sha256((mirror / "c.tgz").read_bytes()).hexdigest()
    sums = Checksums.read(tmp_path / "c")
    assert sums.files == {
        "c.tgz": archive,
        "test.en": hashlib.sha256(b"a\nb\n").hexdigest(),
        "test.de": hashlib.sha256(b"c\nd\n").hexdigest(),
    }
    assert set(sums.texts) == set(TEXTS)
    assert any(
        f"c.tgz: first download, recorded in {tmp_path}" in n and f'sha256 = "{archive}"' in n for n in notes
    )

    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "c").iterdir()}
    notes.clear()
    (mirror / "c.tgz").write_bytes(b"another")  # neither read again nor asked for
    fetch(describe(tmp_path), tmp_path / "c", mirror=mirror, note=notes.append)
    assert {path: path.stat().st_mtime_ns for path in before} == before | {
        tmp_path / "c" / "checksums.toml": (tmp_path / "c" / "checksums.toml").stat().st_mtime_ns
    }
    assert notes == []


def test_texts_without_their_archive(tmp_path: Path, mirror: Path) -> None:
    """Which may be removed when disk is short; an edited text is made anew from it."""
    description = describe(tmp_path)
    fetch(description, tmp_path / "c", mirror=mirror)
    (tmp_path / "c" / "c.tgz").unlink()
    fetch(description, tmp_path / "c", mirror=tmp_path)
    (tmp_path / "c" / "train.en").write_text("mine\n")
    fetch(description, tmp_path / "c", mirror=mirror)
    assert (tmp_path / "c" / "train.en").read_text() == TEXTS["train.en"]
    assert (tmp_path / "c" / "train.en.bad").read_text() == "mine\n"


def test_recorded_sums_hold(tmp_path: Path, mirror: Path) -> None:
    description = describe(tmp_path)
    fetch(description, tmp_path / "c", mirror=mirror)
    for name in ("c.tgz", "train.en"):
        (tmp_path / "c" / name).unlink()
    pack(mirror / "c.tgz", MEMBERS | {"more": b""})
    with pytest.raises(
        UserError, match=r"c\.tgz is not the expected file.*take its line out of .*checksums.toml"
    ):
        fetch(description, tmp_path / "c", mirror=mirror)
    sums = Checksums.read(tmp_path / "c")
    del sums.files["c.tgz"]
    sums.write()
    fetch(description, tmp_path / "c", mirror=mirror)
    assert (tmp_path / "c" / "train.en").read_text() == TEXTS["train.en"]


def test_a_pinned_sum_counts_more(tmp_path: Path, mirror: Path) -> None:
    fetch(describe(tmp_path), tmp_path / "c", mirror=mirror)
    pack(mirror / "c.tgz", {name: text.upper() for name, text in MEMBERS.items()} | {"more": b""})
    with pytest.raises(UserError, match="is not the expected file"):
        fetch(describe(tmp_path, pin=f'sha256 = "{"0" * 64}"'), tmp_path / "d", mirror=mirror)
    pin = f'sha256 = "{hashlib.sha256((mirror / "c.tgz").read_bytes()).hexdigest()}"'
    fetch(describe(tmp_path, pin=pin), tmp_path / "c", mirror=mirror)
    assert (tmp_path / "c" / "train.de").read_bytes() == TEXTS["train.de"].encode().upper()
    assert (tmp_path / "c" / "c.tgz.bad").exists()


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ({"c/train.tags.en": EN}, "does not hold c/train.tags.de"),
        (
            MEMBERS | {"c/train.tags.de": DE + b"one more\n"},
            r"train.tags.de has 5 lines and c/train.tags.en 4",
        ),
        (MEMBERS | {"c/train.tags.de": b"<url>u</url>\n"}, "train.tags.de has no lines"),
        (MEMBERS | {"c/train.tags.de": b"\xff\n" * 4}, r"c.tgz/c/train.tags.de:1: byte 1 is not valid UTF-8"),
        (None, "cannot be unpacked"),
    ],
)
def test_a_wrong_archive(
    tmp_path: Path, mirror: Path, members: dict[str, bytes] | None, message: str
) -> None:
    """It is put aside, nothing is recorded, and the right one takes its place."""
    right = (mirror / "c.tgz").read_bytes()
    if members is None:
        (mirror / "c.tgz").write_bytes(b"<html>moved</html>")
    else:
        pack(mirror / "c.tgz", members)
    with pytest.raises(UserError, match=message) as caught:
        fetch(describe(tmp_path), tmp_path / "c", mirror=mirror)
    assert "\n" not in str(caught.value)
    assert "c.tgz" in str(caught.value)
    assert "c.tgz" not in Checksums.read(tmp_path / "c").files
    assert not list((tmp_path / "c").glob("train*"))
    (mirror / "c.tgz").write_bytes(right)
    fetch(describe(tmp_path), tmp_path / "c", mirror=mirror)
    assert {name: (tmp_path / "c" / name).read_text() for name in TEXTS} == TEXTS


@pytest.mark.parametrize(
    ("content", "message"),
    [(b"c\n", "test.de has 1 line and test.en 2"), (b"", "no lines"), (b"<html>\n</html>\n", "web page")],
)
def test_a_wrong_plain_file(tmp_path: Path, mirror: Path, content: bytes, message: str) -> None:
    (mirror / "test.de").write_bytes(content)
    with pytest.raises(UserError, match=message):
        fetch(describe(tmp_path), tmp_path / "c", mirror=mirror)
    assert Checksums.read(tmp_path / "c").files == {}
    (mirror / "test.de").write_bytes(b"c\nd\n")
    fetch(describe(tmp_path), tmp_path / "c", mirror=mirror)
    assert (tmp_path / "c" / "test.de").read_bytes() == b"c\nd\n"


def test_sides_of_two_days(tmp_path: Path, mirror: Path) -> None:
    """A language that is fetched later is held to the one that is there."""
    description = describe(tmp_path)
    fetch(description, tmp_path / "c", mirror=mirror, languages=["en"])
    (mirror / "test.de").write_bytes(b"c\nd\ne\n")
    with pytest.raises(UserError, match=r"test\.de has 3 lines and test\.en 2"):
        fetch(description, tmp_path / "c", mirror=mirror)
    (mirror / "test.de").write_bytes(b"c\nd\n")
    for name, content in (("train.de", None), ("train.en", b"mine\n")):
        fetch(description, tmp_path / "c", mirror=mirror)
        (tmp_path / "c" / name).unlink()
        if content is not None:
            (tmp_path / "c" / name).write_bytes(content)
    paths = fetch(description, tmp_path / "c", mirror=mirror)
    assert [path.read_text().count("\n") for path in paths] == [4, 2, 4, 2]

    # An archive whose sides are not of one length, of which one side was taken first.
    pack(mirror / "c.tgz", MEMBERS | {"c/train.tags.de": DE + b"one more\n"})
    fetch(description, tmp_path / "d", mirror=mirror, languages=["en"])
    with pytest.raises(UserError, match=r"train.tags.de has 5 lines and c/train.tags.en 4"):
        fetch(description, tmp_path / "d", mirror=mirror)
    assert not (tmp_path / "d" / "train.de").exists()


def test_gzipped_texts_are_the_same_each_time(tmp_path: Path, mirror: Path) -> None:
    description = describe(tmp_path)
    description.write_text(description.read_text().replace('"train.en"', '"train.en.gz"'))
    for name in ("a", "b"):
        fetch(description, tmp_path / name, mirror=mirror)
    packed = (tmp_path / "a" / "train.en.gz").read_bytes()
    assert gzip.decompress(packed).decode() == TEXTS["train.en"]
    assert packed == (tmp_path / "b" / "train.en.gz").read_bytes()


@pytest.mark.parametrize("text", ["[files", "[files]\nx = 1\n", '[texts.x]\nsha256 = "a"\n', "files = 3\n"])
def test_damaged_records(tmp_path: Path, mirror: Path, text: str) -> None:
    (tmp_path / "c").mkdir()
    (tmp_path / "c" / "checksums.toml").write_text(text)
    with pytest.raises(UserError, match=r"checksums.toml: it is not as it was written"):
        fetch(describe(tmp_path), tmp_path / "c", mirror=mirror)


@pytest.mark.parametrize(
    ("old", "new", "what"),
    [
        ('archive = "c.tgz"', 'archive = "d.tgz"', "none of the .*archives"),
        ('"c.tgz"\n', '"c.rar"\n', "ends in none of"),
        ('member = "c/', 'member = "../', "not a path inside"),
        ('member = "c/', 'member = "/c/', "not a path inside"),
        ('format = "tags"', 'format = "pdf"', "none of plain, tags, segments"),
        ('format = "tags"', 'format = "tags"\nsha256 = "x"', "unknown key sha256"),
        ('"test.de"', '"c.tgz"', "same name"),
        ('"test.de"', '"checksums.toml"', "a use of its own"),
        ("[[archives]]\n", '[[archives]]\nname = "b.tgz"\n[[archives]]\n', "no text is taken from b.tgz"),
    ],
)
def test_wrong_descriptions(tmp_path: Path, old: str, new: str, what: str) -> None:
    text = describe(tmp_path).read_text()
    assert old in text
    with pytest.raises(UserError, match=what):
        registry.parse_corpus(text.replace(old, new, 1), file="x.toml")


@pytest.mark.parametrize("name", ["iwslt14-de-en", "iwslt15-en-vi", "wmt14-en-de", "wmt14-en-fr"])
def test_public_corpora_are_whole(name: str) -> None:
    """Every split in both languages, every address on the web."""
    corpus = registry.load_corpus(name)
    pairs = {(split, language) for split in corpus.splits for language in corpus.languages}
    assert [
        (file.split, file.language) for file in corpus.files if (file.split, file.language) not in pairs
    ] == []
    assert len(corpus.files) == len(pairs)
    for file in corpus.files:
        assert file.name.removesuffix(".gz") == f"{file.split}.{file.language}"
        assert file.member or file.url.startswith("https://")
    assert all(archive.url.startswith("https://") for archive in corpus.archives)
