"""Fetching from a server that misbehaves in every way we could think of, and from mirrors."""

from __future__ import annotations

import hashlib
import random
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from nmt.data import registry
from nmt.data.fetch import ATTEMPTS, fetch
from nmt.errors import UserError

CONTENT = {f"t.{language}": random.Random(language).randbytes(300_000) for language in ("en", "de")}
SHARED = Path(__file__).resolve().parents[2] / "shared" / "data" / "multi30k"


class Handler(BaseHTTPRequestHandler):
    """Behaves as the first folder of the path says."""

    server: Server

    def do_GET(self) -> None:
        _, manner, name = self.path.split("/")
        asked = self.headers.get("Range")
        before = sum(request[0] == self.path for request in self.server.requests)
        self.server.requests.append((self.path, asked))
        content = CONTENT[name]
        start = int(asked.removeprefix("bytes=").removesuffix("-")) if asked else 0
        if manner == "missing":
            return self.send_error(404)
        if manner == "down" or (manner == "busy" and not before):
            return self.send_error(503)
        if manner == "wrong":
            content = content[:-1] + b"?"
        if manner == "ignores_range":
            start = 0
        if start >= len(content):
            return self.send_error(416)
        self.send_response(206 if start else 200)
        if start:
            shown = start + (7 if manner == "wrong_part" else 0)
            self.send_header("Content-Range", f"bytes {shown}-{len(content) - 1}/{len(content)}")
        part = content[start:]
        self.send_header("Content-Length", str(len(part)))
        self.end_headers()
        breaks = {"breaks_once": not before, "ignores_range": not before, "always_breaks": True}
        if breaks.get(manner):
            part = part[:100_000]
        if manner == "slow":
            self.wfile.write(part[:100_000])
            self.wfile.flush()
            time.sleep(30)
        self.wfile.write(part)
        self.close_connection = True
        return None

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


class Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.requests: list[tuple[str, str | None]] = []
        self.url = f"http://127.0.0.1:{self.server_address[1]}"

    def handle_error(self, request: object, client_address: object) -> None:
        pass  # clients that hang up are part of the test

    @property
    def ranges(self) -> list[str | None]:
        return [asked for _, asked in self.requests]


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as running:
        thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield running
        running.shutdown()
        thread.join()


@pytest.fixture
def waits() -> list[float]:
    return []


def describe(folder: Path, base_url: str, names: tuple[str, ...] = ("t.en",)) -> Path:
    files = "".join(
        f'[[files]]\nname = "{name}"\nsplit = "t"\nlanguage = "{name[-2:]}"\n'
        f'sha256 = "{hashlib.sha256(CONTENT[name]).hexdigest()}"\n'
        for name in names
    )
    path = folder / "tiny.toml"
    path.write_text(
        'name = "tiny"\ndescription = "d"\nhomepage = "h"\nlicence = "l"\nlanguages = ["en", "de"]\n'
        f'base_url = "{base_url}/"\n{files}'
    )
    return path


def test_fetches_and_then_leaves_alone(tmp_path: Path, server: Server, waits: list[float]) -> None:
    description = describe(tmp_path, f"{server.url}/good", ("t.en", "t.de"))
    seen: list[tuple[str, int, int | None]] = []
    paths = fetch(description, tmp_path / "c", progress=lambda *call: seen.append(call), sleep=waits.append)
    assert [path.name for path in paths] == ["t.en", "t.de"]
    assert [path.read_bytes() for path in paths] == [CONTENT["t.en"], CONTENT["t.de"]]
    assert ("t.en", 300_000, 300_000) in seen
    assert [received for name, received, _ in seen if name == "t.en"] == sorted(
        received for name, received, _ in seen if name == "t.en"
    )
    assert not list((tmp_path / "c").glob("*.part"))
    before = [path.stat().st_mtime_ns for path in paths]
    assert fetch(description, tmp_path / "c") == paths
    assert [path.stat().st_mtime_ns for path in paths] == before
    assert len(server.requests) == 2
    assert waits == []


def test_default_folder_and_languages(
    tmp_path: Path, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    description = describe(tmp_path, f"{server.url}/good", ("t.en", "t.de"))
    assert fetch(description, languages=["de"]) == [Path("corpora/tiny/t.de")]
    with pytest.raises(UserError, match="no files in fr; choose from en, de"):
        fetch(description, languages=["fr"])


def test_goes_on_where_it_broke_off(tmp_path: Path, server: Server, waits: list[float]) -> None:
    (path,) = fetch(describe(tmp_path, f"{server.url}/breaks_once"), tmp_path / "c", sleep=waits.append)
    assert path.read_bytes() == CONTENT["t.en"]
    assert server.ranges == [None, "bytes=100000-"]
    assert waits == [1.0]


def test_a_server_that_ignores_range(tmp_path: Path, server: Server, waits: list[float]) -> None:
    (path,) = fetch(describe(tmp_path, f"{server.url}/ignores_range"), tmp_path / "c", sleep=waits.append)
    assert path.read_bytes() == CONTENT["t.en"]
    assert server.ranges == [None, "bytes=100000-"]


def test_passing_trouble_is_tried_again(tmp_path: Path, server: Server, waits: list[float]) -> None:
    (path,) = fetch(describe(tmp_path, f"{server.url}/busy"), tmp_path / "c", sleep=waits.append)
    assert path.read_bytes() == CONTENT["t.en"]
    assert waits == [1.0]


def test_gives_up_in_the_end_and_goes_on_next_time(
    tmp_path: Path, server: Server, waits: list[float]
) -> None:
    with pytest.raises(UserError, match=r"503.*--mirror"):
        fetch(describe(tmp_path, f"{server.url}/down"), tmp_path / "c", sleep=waits.append)
    assert waits == [1.0, 2.0, 4.0, 8.0]
    assert len(server.requests) == ATTEMPTS
    (tmp_path / "c" / "t.en.part").write_bytes(CONTENT["t.en"][:1234])
    fetch(describe(tmp_path, f"{server.url}/good"), tmp_path / "c")
    assert server.ranges[-1] == "bytes=1234-"
    assert (tmp_path / "c" / "t.en").read_bytes() == CONTENT["t.en"]


def test_another_part_than_asked_for_is_refused(tmp_path: Path, server: Server) -> None:
    (tmp_path / "c").mkdir()
    (tmp_path / "c" / "t.en.part").write_bytes(CONTENT["t.en"][:1234])
    with pytest.raises(UserError, match="another part than asked for"):
        fetch(describe(tmp_path, f"{server.url}/wrong_part"), tmp_path / "c", sleep=lambda seconds: None)


def test_wrong_content_leaves_no_file(tmp_path: Path, server: Server) -> None:
    description = describe(tmp_path, f"{server.url}/wrong")
    with pytest.raises(UserError) as caught:
        fetch(description, tmp_path / "c")
    message = str(caught.value)
    assert hashlib.sha256(CONTENT["t.en"]).hexdigest() + " expected" in message
    assert hashlib.sha256(CONTENT["t.en"][:-1] + b"?").hexdigest() + " received" in message
    assert str(tmp_path / "c" / "t.en") in message
    assert "--mirror" in message
    assert not list((tmp_path / "c").glob("t.en*"))


@pytest.mark.parametrize("stale", [b"x" * 1234, b"x" * 400_000])
def test_a_stale_part_is_begun_anew(tmp_path: Path, server: Server, stale: bytes) -> None:
    (tmp_path / "c").mkdir()
    (tmp_path / "c" / "t.en.part").write_bytes(stale)
    (path,) = fetch(describe(tmp_path, f"{server.url}/good"), tmp_path / "c")
    assert path.read_bytes() == CONTENT["t.en"]
    assert server.ranges == [f"bytes={len(stale)}-", None]


def test_a_whole_part_only_takes_its_name(tmp_path: Path, server: Server) -> None:
    (tmp_path / "c").mkdir()
    (tmp_path / "c" / "t.en.part").write_bytes(CONTENT["t.en"])
    fetch(describe(tmp_path, f"{server.url}/good"), tmp_path / "c")
    assert server.requests == []


def test_a_changed_file_is_put_aside(tmp_path: Path, server: Server) -> None:
    (tmp_path / "c").mkdir()
    (tmp_path / "c" / "t.en").write_bytes(b"mine")
    (path,) = fetch(describe(tmp_path, f"{server.url}/good"), tmp_path / "c")
    assert path.read_bytes() == CONTENT["t.en"]
    assert (tmp_path / "c" / "t.en.bad").read_bytes() == b"mine"


def test_missing_is_not_tried_again(tmp_path: Path, server: Server, waits: list[float]) -> None:
    with pytest.raises(UserError, match=rf"{server.url}/missing/t.en .*404.*--mirror"):
        fetch(describe(tmp_path, f"{server.url}/missing"), tmp_path / "c", sleep=waits.append)
    assert waits == []


def test_no_network(tmp_path: Path, waits: list[float]) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{unused.getsockname()[1]}"
        with pytest.raises(UserError, match=r"check the network.*--mirror"):
            fetch(describe(tmp_path, url), tmp_path / "c", sleep=waits.append)
    assert len(waits) == ATTEMPTS - 1


def test_mirrors(tmp_path: Path, server: Server) -> None:
    description = describe(tmp_path, f"{server.url}/missing")
    (path,) = fetch(description, tmp_path / "a", mirror=f"{server.url}/good/")
    assert path.read_bytes() == CONTENT["t.en"]
    folder = tmp_path / "mirror"
    folder.mkdir()
    with pytest.raises(UserError, match="cannot be had from the mirror"):
        fetch(description, tmp_path / "b", mirror=folder)
    (folder / "t.en").write_bytes(CONTENT["t.en"][:100])
    with pytest.raises(UserError, match="not the expected file"):
        fetch(description, tmp_path / "b", mirror=folder)
    (folder / "t.en").write_bytes(CONTENT["t.en"])
    (path,) = fetch(description, tmp_path / "b", mirror=str(folder))
    assert path.read_bytes() == CONTENT["t.en"]
    with pytest.raises(UserError, match="neither http nor https"):
        fetch(description, tmp_path / "d", mirror="ftp://host/")
    with pytest.raises(UserError, match="the mirror is no folder"):
        fetch(description, tmp_path / "d", mirror=tmp_path / "absent")


def test_a_folder_that_cannot_be(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot be written"):
        fetch(describe(tmp_path, "http://127.0.0.1:9"), tmp_path / "file" / "c")


def test_killed_in_the_middle(tmp_path: Path, server: Server) -> None:
    description = describe(tmp_path, f"{server.url}/slow")
    program = "import sys; from nmt.data.fetch import fetch; fetch(sys.argv[1], sys.argv[2])"
    process = subprocess.Popen([sys.executable, "-c", program, str(description), str(tmp_path / "c")])
    part = tmp_path / "c" / "t.en.part"
    deadline = time.monotonic() + 20
    # A chunk or more has reached the file.
    while not (part.exists() and part.stat().st_size) and time.monotonic() < deadline:
        time.sleep(0.01)
    process.kill()
    process.wait()
    held = part.stat().st_size
    assert 0 < held <= 100_000
    assert not (tmp_path / "c" / "t.en").exists()
    fetch(describe(tmp_path, f"{server.url}/good"), tmp_path / "c")
    assert server.ranges[-1] == f"bytes={held}-"
    assert (tmp_path / "c" / "t.en").read_bytes() == CONTENT["t.en"]


def test_two_at_once(tmp_path: Path, server: Server) -> None:
    description = describe(tmp_path, f"{server.url}/good", ("t.en", "t.de"))
    threads = [threading.Thread(target=fetch, args=(description, tmp_path / "c")) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(server.requests) == 2


def test_registry_names() -> None:
    assert "multi30k" in registry.corpus_names()
    assert [corpus.name for corpus in registry.load_corpora()] == registry.corpus_names()
    with pytest.raises(UserError, match="did you mean multi30k"):
        registry.load_corpus("multi30")


def test_multi30k_is_whole() -> None:
    corpus = registry.load_corpus("multi30k")
    assert {(file.split, file.language) for file in corpus.files} == {
        (split, language) for split in corpus.splits for language in corpus.languages
    }
    assert len(corpus.files) == 18
    for file in corpus.files:
        assert file.name == f"{file.split}.{file.language}.gz"
        assert file.url.startswith("https://")
        assert file.url.endswith(f"/data/task1/raw/{file.name}")


@pytest.mark.parametrize(
    ("old", "new", "what"),
    [
        ('name = "tiny"', "name = tiny", "not valid TOML"),
        ('name = "tiny"', 'name = "../tiny"', "not a plain name"),
        ('licence = "l"\n', "", "licence is missing"),
        ('licence = "l"\n', 'licence = "l"\nlicense = "l"\n', "unknown key license"),
        ('name = "t.en"', 'name = "../t.en"', "not a plain file name"),
        ('name = "t.en"', 'name = ".lock"', "not a plain file name"),
        ('split = "t"', "split = 1", "split is not of type str"),
        ('sha256 = "', 'sha256 = "z', "not 64 lower-case hex digits"),
        ('language = "en"', 'language = "fr"', "not among"),
        ("http://127.0.0.1", "file://127.0.0.1", "no url"),
    ],
)
def test_wrong_descriptions(tmp_path: Path, old: str, new: str, what: str) -> None:
    text = describe(tmp_path, "http://127.0.0.1").read_text()
    assert old in text
    with pytest.raises(UserError, match=what):
        registry.parse_corpus(text.replace(old, new, 1), file="x.toml")


def test_sums_are_those_of_the_files_at_hand() -> None:
    sums = SHARED / "raw.sha256"
    if not sums.exists():
        pytest.skip("no local copy of Multi30k")
    expected = {line.split()[1]: line.split()[0] for line in sums.read_text().splitlines()}
    assert {file.name: file.sha256 for file in registry.load_corpus("multi30k").files} == expected


def test_from_the_copy_at_hand(tmp_path: Path) -> None:
    if not (SHARED / "raw").is_dir():
        pytest.skip("no local copy of Multi30k")
    assert len(fetch("multi30k", tmp_path, mirror=SHARED / "raw")) == 18
    assert len(fetch("multi30k", tmp_path, languages=["en", "de"], mirror=SHARED / "raw")) == 12
