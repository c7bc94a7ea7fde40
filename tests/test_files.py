"""A file or folder exists whole or not at all: after exceptions, and after SIGKILL at any moment."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from nmt import files
from nmt.files import new_folder, point, remove_folder, remove_partial, write_file


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


# --- write_file --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("content", [b"", b"\0\xff\r\n", "", "ä\r\n\u2028🙂\0"])
def test_write_and_read_back(tmp_path: Path, content: bytes | str) -> None:
    file = tmp_path / "new" / "folder" / "f"
    for _ in range(2):  # the second replaces the first
        write_file(file, content)
        assert file.read_bytes() == (content if isinstance(content, bytes) else content.encode())
    assert names(file.parent) == {"f"}


@pytest.mark.parametrize("error", [OSError("no space left"), KeyboardInterrupt()])
@pytest.mark.parametrize("old", [None, b"old"])
@pytest.mark.parametrize("at", ["fsync", "replace"])
def test_failed_write_keeps_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException, old: bytes | None, at: str
) -> None:
    file = tmp_path / "f"
    if old is not None:
        file.write_bytes(old)

    def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr(*((files.os, "fsync") if at == "fsync" else (Path, "replace")), fail)
    with pytest.raises(type(error)):
        write_file(file, b"new")
    monkeypatch.undo()
    assert names(tmp_path) == (set() if old is None else {"f"})
    if old is not None:
        assert file.read_bytes() == old


def test_text_that_cannot_be_encoded(tmp_path: Path) -> None:
    write_file(tmp_path / "f", "old")
    with pytest.raises(UnicodeEncodeError):
        write_file(tmp_path / "f", "new \ud800")
    assert (tmp_path / "f").read_text() == "old"
    assert names(tmp_path) == {"f"}


def test_write_where_a_folder_is(tmp_path: Path) -> None:
    (tmp_path / "f" / "inside").mkdir(parents=True)
    with pytest.raises(OSError, match="irectory"):
        write_file(tmp_path / "f", "new")
    assert names(tmp_path) == {"f"}
    assert names(tmp_path / "f") == {"inside"}


# --- new_folder --------------------------------------------------------------------------------------------


def make(path: Path, content: str, *, fail: BaseException | None = None) -> None:
    with new_folder(path) as partial:
        (partial / "a").write_text(content)
        (partial / "sub").mkdir()
        (partial / "sub" / "b").write_text(content)
        if fail is not None:
            raise fail


def content_of(path: Path) -> str | None:
    """The content of a folder made by `make`, "broken" if it is not whole, None if it is not there."""
    if not path.exists():
        return None
    found = {str(p.relative_to(path)): p.read_text() for p in path.rglob("*") if p.is_file()}
    if set(found) != {"a", "sub/b"} or found["a"] != found["sub/b"]:
        return "broken"
    return found["a"]


def test_new_folder(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "d"
    with new_folder(path) as partial:
        assert partial.is_dir()
        assert partial.parent == path.parent
        assert not path.exists()
    assert names(path) == set()
    make(path, "one")
    assert content_of(path) == "one"
    make(path, "two")
    assert content_of(path) == "two"
    assert names(path.parent) == {"d"}


@pytest.mark.parametrize("error", [ValueError("x"), KeyboardInterrupt(), SystemExit(1)])
def test_failed_folder_leaves_nothing(tmp_path: Path, error: BaseException) -> None:
    with pytest.raises(type(error)):
        make(tmp_path / "d", "new", fail=error)
    assert names(tmp_path) == set()
    make(tmp_path / "d", "old")
    with pytest.raises(type(error)):
        make(tmp_path / "d", "new", fail=error)
    assert names(tmp_path) == {"d"}
    assert content_of(tmp_path / "d") == "old"


def test_new_folder_over_leftovers_of_the_same_process_number(tmp_path: Path) -> None:
    leftover = tmp_path / f".d.partial-{os.getpid()}"
    leftover.mkdir()
    (leftover / "stale").write_text("stale")
    make(tmp_path / "d", "new")
    assert content_of(tmp_path / "d") == "new"
    assert names(tmp_path) == {"d"}


def test_remove_folder(tmp_path: Path) -> None:
    make(tmp_path / "d", "x")
    make(tmp_path / "e", "y")
    remove_folder(tmp_path / "d")
    assert names(tmp_path) == {"e"}


def test_remove_partial(tmp_path: Path) -> None:
    """Leftovers of any process go: files, folders, links; all else stays."""
    elsewhere = tmp_path / "elsewhere"
    make(elsewhere, "kept")
    folder = tmp_path / "folder"
    make(folder / "d", "kept")
    for name in ("f", ".hidden", ".partial", "partial-1", "x.partial-7"):
        (folder / name).write_text("kept")
    kept = names(folder)
    make(folder / ".d.partial-123", "half")
    make(folder / ".d.partial-123-removed", "half")
    (folder / ".f.partial-123").write_text("half")
    (folder / ".l.partial-123").symlink_to(elsewhere)
    (folder / ".m.partial-123").symlink_to("nowhere")
    remove_partial(folder)
    assert names(folder) == kept
    assert content_of(folder / "d") == content_of(elsewhere) == "kept"
    remove_partial(folder)
    remove_partial(tmp_path / "missing")


# --- point -------------------------------------------------------------------------------------------------


def test_point(tmp_path: Path) -> None:
    for number in ("1", "2"):
        make(tmp_path / "steps" / number, number)
    link = tmp_path / "best"
    for number in ("1", "2", "2"):
        point(link, tmp_path / "steps" / number)
        assert content_of(link) == number
    assert os.readlink(link) == os.path.join("steps", "2")  # noqa: PTH115, PTH118
    assert names(tmp_path) == {"steps", "best"}
    (tmp_path / "moved").mkdir()
    for name in ("steps", "best"):
        (tmp_path / name).rename(tmp_path / "moved" / name)
    assert content_of(tmp_path / "moved" / "best") == "2"  # relative, so the run can be moved


def test_point_replaces_a_dangling_link_and_leftovers(tmp_path: Path) -> None:
    make(tmp_path / "1", "1")
    link = tmp_path / "best"
    link.symlink_to("gone")
    (tmp_path / f".best.partial-{os.getpid()}").symlink_to("gone")
    point(link, tmp_path / "1")
    assert content_of(link) == "1"
    assert names(tmp_path) == {"1", "best"}


# --- SIGKILL -----------------------------------------------------------------------------------------------


def test_kill_in_the_middle_of_the_body(tmp_path: Path) -> None:
    """A child is killed while it writes: the old folder is whole, and what it left can be cleared."""
    make(tmp_path / "d", "old")
    program = (
        "import sys, time\nfrom pathlib import Path\nfrom nmt.files import new_folder\n"
        "with new_folder(Path(sys.argv[1])) as partial:\n"
        "    (partial / 'a').write_text('new')\n"
        "    print('ready', flush=True)\n"
        "    time.sleep(60)\n"
    )
    for name, content in (("d", "old"), ("fresh", None)):
        with subprocess.Popen(
            [sys.executable, "-c", program, str(tmp_path / name)], stdout=subprocess.PIPE
        ) as child:
            assert child.stdout is not None
            assert child.stdout.readline() == b"ready\n"
            child.kill()
        assert content_of(tmp_path / name) == content
    assert len(names(tmp_path)) == 3
    remove_partial(tmp_path)
    assert names(tmp_path) == {"d"}


# Kills itself just before its n-th call that could change the file system, for n = 1, 2, ... until it ends.
KILLED_EVERYWHERE = """
import json, os, signal, sys
from pathlib import Path
from nmt.files import new_folder, point, write_file

EVENTS = {"open", "os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.symlink", "shutil.rmtree"}
left = None

def hook(event, arguments):
    global left
    if left is not None and event in EVENTS:
        left -= 1
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)

sys.addaudithook(hook)
what, root = sys.argv[1], Path(sys.argv[2])
rounds = 0
killed = True
while killed:
    rounds += 1
    place = root / str(rounds)
    (place / "old" / "sub").mkdir(parents=True)
    for name in ("old/a", "old/sub/b", "file"):
        (place / name).write_text("old")
    (place / "link").symlink_to("old")
    process = os.fork()
    if process == 0:
        left = rounds
        if what == "file":
            write_file(place / "file", "new")
        elif what == "link":
            point(place / "link", place / "new")
        else:
            with new_folder(place / what) as partial:
                (partial / "a").write_text("new")
                (partial / "sub").mkdir()
                (partial / "sub" / "b").write_text("new")
        os._exit(0)
    killed = os.WIFSIGNALED(os.waitpid(process, 0)[1])
print(json.dumps(rounds))
"""


def killed_everywhere(what: str, root: Path) -> list[Path]:
    """The places left by a child killed before each of its calls; the last one ended in peace."""
    done = subprocess.run(
        [sys.executable, "-c", KILLED_EVERYWHERE, what, str(root)], capture_output=True, check=True, text=True
    )
    places = [root / str(number) for number in range(1, json.loads(done.stdout) + 1)]
    assert len(places) > 2
    return places


def test_file_killed_at_any_moment(tmp_path: Path) -> None:
    places = killed_everywhere("file", tmp_path)
    found = [(place / "file").read_text() for place in places]
    assert set(found) == {"old", "new"}
    assert found == sorted(found, reverse=True)
    for place in places:
        remove_partial(place)
        assert names(place) == {"file", "link", "old"}


def test_link_killed_at_any_moment(tmp_path: Path) -> None:
    places = killed_everywhere("link", tmp_path)
    assert {os.readlink(place / "link") for place in places} == {"old", "new"}  # noqa: PTH115
    for place in places:
        remove_partial(place)
        assert names(place) == {"file", "link", "old"}


def test_fresh_folder_killed_at_any_moment(tmp_path: Path) -> None:
    places = killed_everywhere("fresh", tmp_path)
    assert {content_of(place / "fresh") for place in places} == {None, "new"}
    assert content_of(places[-1] / "fresh") == "new"
    for place in places:
        before = content_of(place / "fresh")
        remove_partial(place)
        assert content_of(place / "fresh") == before
        assert names(place) - {"fresh"} == {"file", "link", "old"}


def test_replaced_folder_killed_at_any_moment(tmp_path: Path) -> None:
    """Between two renames the name may be absent, but never half there."""
    places = killed_everywhere("old", tmp_path)
    found = {content_of(place / "old") for place in places}
    assert found <= {None, "old", "new"}
    assert {"old", "new"} <= found
    assert content_of(places[-1] / "old") == "new"
