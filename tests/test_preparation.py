"""Preparation of long corpora: in parallel, continued, damaged, changed; always the same bytes."""

from __future__ import annotations

import hashlib
import json
import os
import random
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from pathlib import Path

import numpy as np
import pytest

from nmt.config import Config
from nmt.config_file import parse_config
from nmt.data import blocks, encode, prepare, scan, sums, unfinished
from nmt.data.corpus import read_lines, read_parallel
from nmt.data.filter import Dropper, Filter, HeldOut
from nmt.data.prepare import TrainingData
from nmt.data.prepare import prepare as prepare_data
from nmt.data.scan import Scanner
from nmt.errors import UserError
from nmt.files import lock

CONFIG = """
[data]
train = ["{folder}/a", "{folder}/b.tsv", "{folder}/c"]
validation = "{folder}/validation"
source_language = "en"
target_language = "de"
max_tokens = 12
max_ratio = 3.0
drop_copies = true
drop_duplicates = true
drop_overlap = true
[tokenizer]
vocabulary_size = 330
"""
WORDS = ["red", "green", "blau", "gelb", "haus", "house", "über", "straße", "東京", "x", "<back>"]
SMALL_BLOCK = 16


def write_corpora(folder: Path, count: int = 300) -> None:
    chance = random.Random(1)

    def line() -> str:
        return " ".join(chance.choices(WORDS, k=chance.randint(1, 8)))

    def pair() -> tuple[str, str]:
        kind = chance.random()
        if kind < 0.05:
            return "", line()
        if kind < 0.1:
            return line(), "  "
        if kind < 0.15:
            same = line()
            return same, same
        if kind < 0.2:
            return "red", "house " * 9
        if kind < 0.25:
            return "haus über " * 7, "house green " * 7
        if kind < 0.3:
            return "held out line", line()
        if kind < 0.4:
            return "comes", "again " * chance.randint(1, 3)
        return line() + "\r", line() + " x"

    for name in ("a", "c"):
        pairs = [pair() for _ in range(count)]
        (folder / f"{name}.en").write_bytes("".join(f"{source}\n" for source, _ in pairs).encode())
        (folder / f"{name}.de").write_bytes("".join(f"{target}\n" for _, target in pairs).encode())
    rows = "".join(f"{source.strip()}\t{target}\n" for source, target in (pair() for _ in range(50)))
    (folder / "b.tsv").write_bytes(rows.encode())
    for language in ("en", "de"):
        (folder / f"validation.{language}").write_text("held out line\nsomething else\n")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(blocks, "LINES", SMALL_BLOCK)
    monkeypatch.setattr(unfinished, "_SECONDS", 0.0)
    write_corpora(tmp_path)
    return tmp_path


def config(folder: Path, *overrides: str) -> Config:
    return parse_config(CONFIG.format(folder=folder), overrides=["data.workers=0", *overrides])


def contents(data: TrainingData) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in sorted(data.folder.iterdir())}


def test_what_is_kept_is_what_the_dropper_keeps(folder: Path) -> None:
    settings = config(folder).data
    rules = Filter(max_ratio=3.0, drop_copies=True, drop_duplicates=True, drop_overlap=True)
    held_out = HeldOut().add("validation", read_parallel(folder / "validation", "en", "de"))
    dropper = Dropper(rules, held_out)
    expected = []
    for prefix in settings.train_prefixes:
        for number, pair in enumerate(read_parallel(prefix, "en", "de"), start=1):
            if dropper.reason(*pair, file=Path(prefix).name, line=number) is None:
                expected.append((Path(prefix).name, number, pair))
    data = prepare_data(config(folder), folder / "prepared")
    source, target = data.source_tokenizer, data.target_tokenizer
    fits = [max(len(source.encode(pair[0])), len(target.encode(pair[1]))) <= 12 for _, _, pair in expected]
    found = [
        (source.decode(data.source[i].tolist()), target.decode(data.target[i].tolist()))
        for i in range(len(data.source))
    ]
    assert found == [pair for (_, _, pair), is_kept in zip(expected, fits, strict=True) if is_kept]
    rows = {row["reason"]: row for row in data.manifest["dropped"]}
    long = [
        f"{name}:{number}" for (name, number, _), is_kept in zip(expected, fits, strict=True) if not is_kept
    ]
    assert rows.pop("too many tokens")["places"] == long[:5]
    assert {reason: (row["count"], tuple(row["places"])) for reason, row in rows.items()} == {
        row.reason: (row.count, row.places) for row in dropper.drop_table()
    }
    assert set(rows) == {*Dropper.REASONS} - {"too long"}
    assert data.manifest["lines"] == dropper.seen == 650
    assert data.manifest["kept"] == len(found) == sum(data.sizes)
    names = [name for (name, _, _), is_kept in zip(expected, fits, strict=True) if is_kept]
    assert data.sizes == tuple(names.count(name) for name in ("a", "b.tsv", "c"))


@pytest.mark.parametrize("kind", ["bpe", "unigram", "word"])
def test_parallel_preparation_equals_serial(folder: Path, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    overrides = [
        f"tokenizer.type={kind}",
        "tokenizer.vocabulary_size=300" if kind == "unigram" else "data.tags=['','<a>','']",
    ]
    serial = prepare_data(config(folder, *overrides), folder / "serial")
    parallel = prepare_data(config(folder, *overrides, "data.workers=2"), folder / "parallel")
    assert contents(serial) == contents(parallel)
    monkeypatch.setattr(blocks, "LINES", 10_000)
    whole = prepare_data(config(folder, *overrides), folder / "whole")
    assert contents(serial) == contents(whole)


def test_text_never_becomes_a_tag(folder: Path) -> None:
    data = prepare_data(config(folder, "data.tags=['', '', '<back>']"), folder / "prepared")
    tag = data.source_tokenizer.id_of("<back>")
    first = data.sizes[0] + data.sizes[1]
    for row in range(len(data.source)):
        ids = data.source[row].tolist()
        assert ids.count(tag) == (1 if row >= first else 0)
        assert (ids[0] == tag) == (row >= first)
        assert tag not in data.target[row]
    assert any("<back>" in data.source_tokenizer.decode(data.source[i].tolist()) for i in range(first))


# --- continued ---------------------------------------------------------------------------------------------

PROGRAM = """
import os, signal, sys
from pathlib import Path
from nmt.config_file import load_config
from nmt.data import blocks, unfinished
from nmt.data.prepare import prepare
blocks.LINES, unfinished._SECONDS = {lines}, 0.0
calls, real = 0, os.fsync
def fsync(file):
    global calls
    calls += 1
    if calls == {die}:
        os.kill(os.getpid(), signal.SIGKILL)
    real(file)
    if calls == -{die}:
        os.kill(os.getpid(), signal.SIGKILL)
os.fsync = fsync
prepare(load_config("c.toml"), Path("prepared"))
print(calls)
"""


@pytest.mark.parametrize("workers", [0, pytest.param(2, marks=pytest.mark.slow)])
def test_killed_at_any_moment_it_goes_on_to_the_same_bytes(folder: Path, workers: int) -> None:
    (folder / "c.toml").write_text(
        CONFIG.format(folder=folder).replace("[tokenizer]", f"workers = {workers}\n[tokenizer]")
    )
    expected = contents(prepare_data(config(folder), folder / "serial"))

    def run(die: int) -> subprocess.CompletedProcess[str]:
        program = PROGRAM.format(lines=SMALL_BLOCK, die=die)
        return subprocess.run(
            [sys.executable, "-c", program], cwd=folder, text=True, capture_output=True, check=False
        )

    chance = random.Random(workers)
    kills = 0
    while (done := run(chance.choice([1, -1]) * chance.randint(1, 150))).returncode:
        assert done.returncode == -9, done.stderr
        kills += 1
        assert kills < 60
    assert kills >= 3
    (prepared,) = [entry for entry in (folder / "prepared").iterdir() if entry.is_dir()]
    assert {file.name: file.read_bytes() for file in sorted(prepared.iterdir())} == expected
    left = {entry.name for entry in (folder / "prepared").iterdir()}
    assert left <= {".lock", "sums.json", ".sums.json.lock", prepared.name}


def interrupt_at(monkeypatch: pytest.MonkeyPatch, owner: object, name: str, call: int) -> None:
    real: Callable[..., object] = getattr(owner, name)
    calls = 0

    def interrupted(*arguments: object, **options: object) -> object:
        nonlocal calls
        calls += 1
        if calls == call:
            raise KeyboardInterrupt
        return real(*arguments, **options)

    monkeypatch.setattr(owner, name, interrupted)


def test_what_was_done_is_not_done_again(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = contents(prepare_data(config(folder), folder / "serial"))
    told: list[str] = []
    with monkeypatch.context() as patch:
        interrupt_at(patch, Scanner, "__call__", 20)
        with pytest.raises(KeyboardInterrupt):
            prepare_data(config(folder), folder / "prepared", told.append)
    assert not any("going on" in line for line in told)
    blocks_judged: list[int] = []
    real = Scanner.__call__
    with monkeypatch.context() as patch:
        patch.setattr(
            Scanner, "__call__", lambda self, block: (blocks_judged.append(1), real(self, block))[1]
        )
        interrupt_at(patch, encode.Encoder, "__call__", 7)
        with pytest.raises(KeyboardInterrupt):
            prepare_data(config(folder), folder / "prepared", told.append)
    assert any("going on" in line for line in told)
    assert len(blocks_judged) == 42 - 19
    with monkeypatch.context() as patch:
        interrupt_at(patch, Scanner, "__call__", 1)
        interrupt_at(patch, prepare, "train_tokenizer", 1)
        interrupt_at(patch, encode.Encoder, "__call__", 42 - 6 + 1)
        data = prepare_data(config(folder), folder / "prepared")
    assert contents(data) == expected


def test_overlap_is_of_the_held_out_sets_at_the_end(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A preparation that was begun with another validation set is begun anew."""
    lines = {side: list(read_lines(folder / f"a.{side}")) for side in ("en", "de")}
    for side, text in lines.items():
        (folder / f"seen.{side}").write_text("".join(f"{line}\n" for line in text[:9]))
        (folder / f"unseen.{side}").write_text("".join(f"nowhere {i} {side}\n" for i in range(9)))

    def validated_on(name: str) -> Config:
        return config(folder, f'data.validation="{folder / name}"', "data.drop_overlap=false")

    def overlap(begun: str, validation: str) -> list[str]:
        root = folder / f"prepared-{begun}"
        with monkeypatch.context() as patch:
            interrupt_at(patch, encode.Encoder, "__call__", 1)
            with pytest.raises(KeyboardInterrupt):
                prepare_data(validated_on(begun), root)
        warned: list[str] = []
        prepare_data(validated_on(validation), root, warn=warned.append)
        return warned

    assert overlap("seen", "unseen") == []
    assert "lines of data.validation" in overlap("unseen", "seen")[0]


def test_what_others_have_begun_stays_for_a_week(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another run's preparation, interrupted, is there when that run goes on."""
    with monkeypatch.context() as patch:
        interrupt_at(patch, encode.Encoder, "__call__", 7)
        with pytest.raises(KeyboardInterrupt):
            prepare_data(config(folder), folder / "prepared")
    (begun,) = (folder / "prepared").glob(".*.unfinished")
    prepare_data(config(folder, "data.max_tokens=13"), folder / "prepared")
    assert begun.is_dir()
    told: list[str] = []
    prepare_data(config(folder), folder / "prepared", told.append)
    assert told[0] == "going on with a preparation that was interrupted"
    for days, stays in ((6, True), (8, False)):
        old = folder / "prepared/.old.unfinished"
        old.mkdir()
        (old / "file").write_text("text")
        for path in (old / "file", old):
            os.utime(path, (time.time() - days * 24 * 3600,) * 2)
        prepare_data(config(folder, f"data.max_tokens={20 + days}"), folder / "prepared")
        assert old.exists() == stays
        shutil.rmtree(old, ignore_errors=True)
    # A folder is as old as the newest file in it.
    old.mkdir()
    (old / "file").write_text("text")
    os.utime(old, (0, 0))
    prepare_data(config(folder, "data.max_tokens=30"), folder / "prepared")
    assert (old / "file").exists()


def test_who_waits_for_another_process_says_so(folder: Path) -> None:
    root = folder / "prepared"
    root.mkdir()
    told: list[str] = []
    held = lock(root, wait=False)

    def tell(text: str) -> None:
        told.append(text)
        held.close()  # the other one is done

    prepare_data(config(folder), root, tell)
    assert told[0] == f"waiting for another process that prepares a corpus in {root}"
    assert sum("waiting" in text for text in told) == 1
    told.clear()
    prepare_data(config(folder, "data.max_tokens=13"), root, tell)
    assert not any("waiting" in text for text in told)


def test_two_runs_that_begin_together(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The one tidies up while the other is about to write down its sums."""
    monkeypatch.setattr(sums, "_SETTLED", -10.0)
    root, real = folder / "prepared", os.fsync
    others: list[Future[TrainingData]] = []

    def fsync(file: int) -> None:
        real(file)
        if not others:
            others.append(pool.submit(prepare_data, config(folder, "data.max_tokens=13"), root))
            wait(others, timeout=1)

    monkeypatch.setattr("nmt.files.os.fsync", fsync)
    with ThreadPoolExecutor() as pool:
        prepare_data(config(folder), root)
        assert others[0].result().folder.parent == root
    assert (root / "sums.json").exists()
    assert [p for p in root.rglob("*") if "partial" in p.name] == []


def test_mistakes_leave_nothing_behind(folder: Path) -> None:
    with (folder / "c.de").open("ab") as file:
        file.write(b"one line more\n")
    with pytest.raises(UserError, match=r"c\.en:\d+: 300 lines, but .*c\.de has 301"):
        prepare_data(config(folder, "data.workers=1"), folder / "prepared")
    assert {entry.name for entry in (folder / "prepared").iterdir()} == {".lock", ".sums.json.lock"}


@pytest.mark.parametrize("workers", [0, 2])
def test_a_bad_line_is_named(folder: Path, workers: int) -> None:
    lines = (folder / "c.de").read_bytes().split(b"\n")
    lines[122] = b"\xff"
    (folder / "c.de").write_bytes(b"\n".join(lines))
    with pytest.raises(UserError, match=r"c\.de:123: byte 1 is not valid UTF-8"):
        prepare_data(config(folder, f"data.workers={workers}"), folder / "prepared")


def test_a_corpus_that_changes_meanwhile_is_refused(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def touch_and_train(*arguments: object, **options: object) -> object:
        with (folder / "a.en").open("ab") as file:
            file.write(b"")
        os.utime(folder / "a.en")
        return train(*arguments, **options)  # type: ignore[arg-type]

    train = prepare.train_tokenizer
    monkeypatch.setattr(prepare, "train_tokenizer", touch_and_train)
    with pytest.raises(UserError, match="was changed while it was prepared"):
        prepare_data(config(folder), folder / "prepared")


# --- damaged and changed -----------------------------------------------------------------------------------


def damage(name: str, how: str) -> Callable[[Path], None]:
    def do(folder: Path) -> None:
        file = folder / name
        content = file.read_bytes()
        if how == "removed":
            file.unlink()
        elif how == "cut":
            file.write_bytes(content[:-3])
        elif how == "longer":
            file.write_bytes(content + b"x")
        elif how == "changed":
            file.write_bytes(content[:20] + bytes([content[20] ^ 1]) + content[21:])
        elif how == "nonsense":
            file.write_bytes(b"[1, 2]" if len(content) % 2 else b"{nothing")

    return do


@pytest.mark.parametrize("how", ["removed", "cut", "longer", "changed"])
@pytest.mark.parametrize("name", ["train.source.tokens", "train.target.offsets", "tokenizer.model"])
def test_a_damaged_folder_is_told_in_one_line(folder: Path, name: str, how: str) -> None:
    data = prepare_data(config(folder), folder / "prepared")
    damage(name, how)(data.folder)
    with pytest.raises(UserError, match=f"damaged: {name}.*; delete this folder, it is made again") as caught:
        prepare_data(config(folder), folder / "prepared")
    assert caught.value.file == str(data.folder)


@pytest.mark.parametrize(
    "content", [b"", b"{", b"[]", b"{}", b'{"files": {"train.source.tokens": 3}}', b"\xff"]
)
def test_a_damaged_manifest(folder: Path, content: bytes) -> None:
    data = prepare_data(config(folder), folder / "prepared")
    (data.folder / "manifest.json").write_bytes(content)
    with pytest.raises(UserError, match="delete this folder"):
        prepare_data(config(folder), folder / "prepared")


def test_a_folder_with_another_tokenizer(folder: Path) -> None:
    data = prepare_data(config(folder), folder / "prepared")
    other = prepare_data(config(folder, "tokenizer.vocabulary_size=331"), folder / "prepared")
    model = other.folder / "tokenizer.model"
    model.write_bytes(model.read_bytes().ljust(10))
    (data.folder / "tokenizer.model").write_bytes(model.read_bytes())
    with pytest.raises(UserError, match=r"damaged: tokenizer\.model"):
        prepare_data(config(folder), folder / "prepared")


def test_the_files_are_checked_before_they_are_prepared(folder: Path) -> None:
    def check(rows: list[dict[str, str]]) -> None:
        assert [Path(row["file"]).name for row in rows] == ["a.en", "a.de", "b.tsv", "c.en", "c.de"]
        assert rows[0]["sha256"] == hashlib.sha256((folder / "a.en").read_bytes()).hexdigest()
        raise UserError("other files")

    told: list[str] = []
    with pytest.raises(UserError, match="other files"):
        prepare_data(config(folder), folder / "prepared", told.append, check=check)
    assert told == []


def test_what_changes_no_token_shares_the_folder(folder: Path) -> None:
    data = prepare_data(config(folder), folder / "prepared")
    for same in ("data.weights=[1, 2, 0]", "data.temperature=3", "data.workers=1", "tokenizer.sampling=0.1"):
        assert prepare_data(config(folder, same), folder / "prepared").folder == data.folder
    for other in ("data.tags=['<x>', '', '']", "data.max_tokens=13", "tokenizer.sample_pairs=100"):
        assert prepare_data(config(folder, other), folder / "prepared").folder != data.folder


# --- the tokenizer's sample, and sums ----------------------------------------------------------------------


def test_the_sample_is_spread_over_the_corpora(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[list[str]] = []
    real = prepare.train_tokenizer

    def watched(lines, **options):  # type: ignore[no-untyped-def]
        seen.append(list(lines))
        return real(iter(seen[-1]), **options)

    monkeypatch.setattr(prepare, "train_tokenizer", watched)
    prepare_data(config(folder), folder / "all")
    prepare_data(config(folder, "tokenizer.sample_pairs=80"), folder / "some")
    whole, sample = seen
    assert len(sample) == 2 * 80
    pairs = [tuple(whole[i : i + 2]) for i in range(0, len(whole), 2)]
    picked = [tuple(sample[i : i + 2]) for i in range(0, len(sample), 2)]
    places = [pairs.index(pair) for pair in picked]
    assert places == sorted(set(places))
    edges = [len(pairs) * i // 80 for i in range(81)]
    assert all(low <= place < high for low, place, high in zip(edges[:-1], places, edges[1:], strict=True))


def test_sums_are_computed_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[str] = []
    real = sums.sha256_of
    monkeypatch.setattr(sums, "sha256_of", lambda path: (read.append(Path(path).name), real(path))[1])
    monkeypatch.setattr(sums, "_SETTLED", -10.0)
    files = [tmp_path / "a", tmp_path / "b"]
    for file in files:
        file.write_text(file.name)
    expected = {str(file): real(file) for file in files}
    cache = tmp_path / "cache" / "sums.json"
    for _ in range(3):
        assert sums.sums_of(files, cache) == expected
    assert read == ["a", "b"]
    # Same size and time of change: the time of the inode's change tells.
    stat = files[0].stat()
    files[0].write_text("c")
    os.utime(files[0], ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert sums.sums_of(files, cache)[str(files[0])] == real(files[0]) != expected[str(files[0])]
    for damaged in ("{nonsense", "[]", "3", "[" * 100_000):
        cache.write_text(damaged)
        assert sums.sums_of(files, cache)[str(files[1])] == expected[str(files[1])]


def test_sums_of_files_just_written_are_not_trusted(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("a")
    sums.sums_of([tmp_path / "a"], tmp_path / "sums.json")
    assert not (tmp_path / "sums.json").exists()


def test_fingerprints(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sums, "_WHOLE", 1000)
    monkeypatch.setattr(sums, "_PIECES", 10)
    monkeypatch.setattr(sums, "_PIECE", 50)
    content = np.random.default_rng(1).bytes(900)
    file = tmp_path / "f"
    seen = set()
    for size in (0, 10, 899, 900):
        file.write_bytes(content[:size])
        seen.add(sums.fingerprint(file))
    long = content * 3
    for place in (None, 0, 25, 2699, 1480):  # in pieces
        changed = bytearray(long)
        if place is not None:
            changed[place] ^= 1
        file.write_bytes(changed)
        seen.add(sums.fingerprint(file))
    assert len(seen) == 4 + 5


def test_duplicates_are_found_in_buckets(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = contents(prepare_data(config(folder), folder / "one"))
    monkeypatch.setattr(scan, "_SORTED", 17)
    monkeypatch.setattr(scan, "_CHUNK", 23)
    assert contents(prepare_data(config(folder), folder / "many")) == expected


def test_manifest_is_readable(folder: Path) -> None:
    data = prepare_data(config(folder, "data.tags=['', '', '<b>']"), folder / "prepared")
    manifest = json.loads((data.folder / "manifest.json").read_text())
    assert manifest["format"] == 2
    assert manifest["tags"] == ["", "", "<b>"]
    assert manifest["source_tokens"] == len(data.source.ids)
    assert [row["file"] for row in manifest["training_data"]] == [
        str(folder / name) for name in ("a.en", "a.de", "b.tsv", "c.en", "c.de")
    ]
