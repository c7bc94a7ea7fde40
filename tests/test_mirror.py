"""Mirrors of several corpora, mirrors with packed text, and the entries of Multi30k."""

from __future__ import annotations

import gzip
import hashlib
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from conftest import REAL_DATA

from nmt.data import registry
from nmt.data.fetch import fetch
from nmt.errors import UserError

TEXT = "".join(f"line {number} of a corpus\n" for number in range(20_000)).encode()
SHARED = REAL_DATA / "multi30k"


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


@pytest.fixture
def mirror(tmp_path: Path) -> Path:
    folder = tmp_path / "mirror"
    folder.mkdir()
    return folder


@pytest.fixture(params=["folder", "url"])
def place(request: pytest.FixtureRequest, mirror: Path) -> Iterator[str]:
    """The mirror's folder, then the same folder behind a server."""
    if request.param == "folder":
        yield str(mirror)
        return
    handler = partial(Quiet, directory=str(mirror))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}/"
        server.shutdown()
        thread.join()


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    path = tmp_path / "c.toml"
    path.write_text(
        'name = "c"\ndescription = "d"\nhomepage = "h"\nlicence = "l"\nlanguages = ["en"]\nfolder = "tok"\n'
        'base_url = "http://127.0.0.1:9/"\n'
        f'[[files]]\nname = "t.en"\nsplit = "t"\nlanguage = "en"\nbytes = {len(TEXT)}\n'
        f'sha256 = "{hashlib.sha256(TEXT).hexdigest()}"\n'
    )
    return path


@pytest.mark.parametrize("inside", ["", "tok"])
@pytest.mark.parametrize("packed", [False, True])
def test_plain_or_packed_at_the_top_or_in_its_folder(
    tmp_path: Path, mirror: Path, place: str, corpus: Path, inside: str, packed: bool
) -> None:
    (mirror / inside).mkdir(exist_ok=True)
    name = "t.en.gz" if packed else "t.en"
    (mirror / inside / name).write_bytes(gzip.compress(TEXT) if packed else TEXT)
    (path,) = fetch(corpus, tmp_path / "c", mirror=place)
    assert path.name == "t.en"
    assert path.read_bytes() == TEXT
    assert sorted(file.name for file in (tmp_path / "c").iterdir()) == [".lock", "t.en"]


def test_its_own_folder_one_level_below(tmp_path: Path, mirror: Path, corpus: Path) -> None:
    for name, content in (("a/tok", b"of another corpus\n"), ("b/tok", TEXT), ("c", TEXT)):
        (mirror / name).mkdir(parents=True)
        (mirror / name / ("u.en" if name == "a/tok" else "t.en")).write_bytes(content)
    fetch(corpus, tmp_path / "out", mirror=str(mirror))
    assert (tmp_path / "out/t.en").read_bytes() == TEXT


def test_its_own_folder_comes_first(tmp_path: Path, mirror: Path, place: str, corpus: Path) -> None:
    (mirror / "t.en").write_text("of another corpus\n")
    (mirror / "tok").mkdir()
    (mirror / "tok" / "t.en").write_bytes(TEXT)
    (path,) = fetch(corpus, tmp_path / "c", mirror=place)
    assert path.read_bytes() == TEXT


@pytest.mark.parametrize(
    ("content", "what"),
    [
        (gzip.compress(TEXT)[:-100], "is no whole gzip file"),
        (gzip.compress(TEXT)[:5000] + bytes(100) + gzip.compress(TEXT)[5100:], "is no whole gzip file"),
        (TEXT, "is no whole gzip file"),
        (b"", "not the expected file"),
        (gzip.compress(TEXT[:-1]), "not the expected file"),
        (gzip.compress(TEXT + b"more\n"), f"holds more than the {len(TEXT):,} bytes expected"),
    ],
    ids=["cut", "damaged", "plain", "empty", "short", "long"],
)
def test_wrong_packed_text_and_then_the_right_one(
    tmp_path: Path, mirror: Path, place: str, corpus: Path, content: bytes, what: str
) -> None:
    (mirror / "t.en.gz").write_bytes(content)
    with pytest.raises(UserError, match=what) as told:
        fetch(corpus, tmp_path / "c", mirror=place)
    assert "t.en.gz" in str(told.value)
    assert "\n" not in str(told.value)
    assert [file.name for file in (tmp_path / "c").iterdir()] == [".lock"]
    (mirror / "t.en.gz").write_bytes(gzip.compress(TEXT))
    (path,) = fetch(corpus, tmp_path / "c", mirror=place)
    assert path.read_bytes() == TEXT


def test_a_bomb_is_not_unpacked(tmp_path: Path, mirror: Path, corpus: Path) -> None:
    (mirror / "t.en.gz").write_bytes(gzip.compress(bytes(200_000_000), compresslevel=1))
    with pytest.raises(UserError, match="holds more than"):
        fetch(corpus, tmp_path / "c", mirror=mirror)


def test_a_mirror_without_the_file(tmp_path: Path, place: str, corpus: Path) -> None:
    with pytest.raises(UserError, match=r"to be had|cannot be had"):
        fetch(corpus, tmp_path / "c", mirror=place)


def test_a_folder_is_one_plain_name(corpus: Path) -> None:
    text = corpus.read_text()
    for folder in ('"../tok"', '"a/b"', '""', "1"):
        with pytest.raises(UserError, match="folder"):
            registry.parse_corpus(text.replace('folder = "tok"', f"folder = {folder}"), file="c.toml")


# Multi30k


def test_the_tokenised_text_is_that_of_the_registry() -> None:
    corpus = registry.load_corpus("multi30k-tok")
    assert len(corpus.files) == 15
    for file in corpus.files:
        assert file.name == f"{file.split}.lc.norm.tok.{file.language}"
        assert file.url.endswith(f"/data/task1/tok/{file.name}")


def test_the_monolingual_text_is_that_of_the_registry() -> None:
    corpus = registry.load_corpus("multi30k-mono")
    assert len(corpus.files) == 10
    assert {file.language for file in corpus.files} == {"en", "de"}
    for file in corpus.files:
        assert file.url.endswith(f"/data/task2/raw/{file.name}")


@pytest.mark.parametrize(("corpus", "count"), [("multi30k", 18), ("multi30k-tok", 15), ("multi30k-mono", 10)])
def test_one_mirror_for_all_of_multi30k(tmp_path: Path, corpus: str, count: int) -> None:
    if not SHARED.is_dir():
        pytest.skip("needs Multi30k in ../shared/data, which is not part of the project")
    assert len(fetch(corpus, tmp_path, mirror=SHARED)) == count
