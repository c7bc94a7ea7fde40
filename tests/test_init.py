"""nmt init: what is held out, what is advised, and that the written configuration works as it is."""

from __future__ import annotations

import gzip
import itertools
import os
import random
import re
import subprocess
import sys
import tomllib
from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nmt.advice import TIERS, advise, fit_tokenizer, tier_of
from nmt.cli.init import init
from nmt.config import Config
from nmt.config_file import load_config
from nmt.data.corpus import read_lines, read_parallel
from nmt.data.prepare import prepare
from nmt.data.synthetic import generate
from nmt.errors import UserError
from nmt.holdout import Corpus, Layout, languages_of, split_corpus
from nmt.profile import look

Pairs = list[tuple[str, str]]


@cache
def pool() -> Pairs:
    return [(p.source, p.target) for p in generate("train", 5000, seed=1)]


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def write(pairs: Pairs, source: str = "corpus.en", target: str = "corpus.de") -> tuple[Path, Path]:
    paths = Path(source), Path(target)
    for side, path in enumerate(paths):
        path.parent.mkdir(parents=True, exist_ok=True)
        content = "".join(f"{pair[side]}\n" for pair in pairs).encode()
        path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)
    return paths


def make(pairs: Pairs, config: str = "my.toml", **options: str | bool) -> Config:
    source, target = write(pairs)
    init(Path(config), source, target, **options)  # type: ignore[arg-type]
    return load_config(config)


def part(config: Config, name: str) -> Pairs:
    data = config.data
    return list(read_parallel(getattr(data, name), data.source_language, data.target_language))


def assert_apart(*parts: Pairs) -> None:
    for side in (0, 1):
        lines = [{pair[side].strip() for pair in pairs} - {""} for pairs in parts]
        assert len(set[str]().union(*lines)) == sum(map(len, lines))


# The whole way


@pytest.mark.parametrize("count", [pytest.param(250, marks=pytest.mark.slow), 5000])
def test_what_is_written_can_be_trained_on(
    count: int, folder: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    config = make(pool()[:count])
    train, validation, test = (part(config, name) for name in ("train", "validation", "test"))
    assert_apart(train, validation, test)
    assert len(validation) == len(test) == max(50, count // 20)
    assert len(train) + len(validation) + len(test) <= count
    assert [p for p in pool()[:count] if p in set(train)] == train, "the order stays"
    data = prepare(config, folder / "prepared")
    assert len(data.source_tokenizer) == config.tokenizer.vocabulary_size
    printed = capfd.readouterr()
    assert printed.out == ""
    assert printed.err.endswith("next        nmt train my.toml\n")
    assert not re.search(r"(?m)^Traceback", printed.err)


def test_nothing_is_lost(capfd: pytest.CaptureFixture[str]) -> None:
    all_pairs = pool()
    odd = [(all_pairs[0][0], "Etwas anderes."), ("", "leer"), ("x " * 300, "y")]
    repeated = [*all_pairs[:600], *all_pairs[:100], *odd]
    config = make(repeated)
    parts = [part(config, name) for name in ("train", "validation", "test")]
    assert_apart(*parts)
    told = re.search(r"overlap +(\d+) pairs", capfd.readouterr().err)
    removed = int(told[1]) if told else 0
    assert sum(map(len, parts)) + removed == len(repeated)
    assert not {"", "x " * 300} & {source for source, _ in parts[1] + parts[2]}


def test_same_input_same_files() -> None:
    config = make(pool()[:400])
    first = {p.name: p.read_bytes() for p in Path("my-data").iterdir()} | {"": Path("my.toml").read_bytes()}
    assert make(pool()[:400], force=True) == config
    assert first == {p.name: p.read_bytes() for p in Path("my-data").iterdir()} | {
        "": Path("my.toml").read_bytes()
    }


def test_every_key_has_its_reason() -> None:
    for pairs in (pool()[:300], pool()):
        make(pairs, force=True)
        lines = Path("my.toml").read_text(encoding="utf-8").split("\n")
        keys = 0
        for before, line in itertools.pairwise(lines):
            if " = " in line and not line.startswith("#"):
                keys += 1
                assert "  # " in line or before.startswith("# "), line
        assert keys > 15
        assert max(map(len, lines)) <= 110


def test_config_in_another_folder_works_from_here_and_from_there(monkeypatch: pytest.MonkeyPatch) -> None:
    config = make(pool()[:300], "new/deep/run")
    assert len(part(config, "test")) == 50
    assert config.data.train == "new/deep/run-data/train"


# Validation and test sets of the user's


def test_given_sets_leave_everything_in_place() -> None:
    write(pool()[:50], "dev.en", "dev.de")
    write(pool()[50:100], "held/test.en.gz", "held/test.de.gz")
    before = {p: p.read_bytes() for p in Path.cwd().rglob("*") if p.is_file()}
    config = make(pool()[100:700], validation="dev", test="held/test")
    assert (config.data.train, config.data.validation, config.data.test) == ("corpus", "dev", "held/test")
    assert not config.data.drop_overlap
    assert not Path("my-data").exists()
    assert before.items() <= {p: p.read_bytes() for p in Path.cwd().rglob("*") if p.is_file()}.items()


def test_overlap_with_given_sets_is_dropped_in_place(capfd: pytest.CaptureFixture[str]) -> None:
    write(pool()[:50], "dev.en", "dev.de")
    write(pool()[40:90], "test.en", "test.de")
    config = make(pool()[:700], validation="dev", test="test")
    assert config.data.train == "corpus"
    assert config.data.drop_overlap
    printed = capfd.readouterr().err
    assert "10 pairs of the test set repeat a line of the validation set" in printed


def test_one_given_set_shares_no_line_with_the_one_held_out() -> None:
    write(pool()[:50], "dev.en", "dev.de")
    config = make(pool()[:700], validation="dev")
    assert config.data.validation == "dev"
    assert {p.name for p in Path("my-data").iterdir()} == {"train.en", "train.de", "test.en", "test.de"}
    assert_apart(part(config, "train"), pool()[:50], part(config, "test"))


def test_files_without_a_common_prefix_are_copied() -> None:
    write(pool()[:50], "dev.en", "dev.de")
    source, target = write(pool()[50:400], "english.en", "deutsch.de")
    init(Path("my.toml"), source, target, validation="dev", test="dev")
    config = load_config("my.toml")
    assert config.data.train == "my-data/train"
    assert part(config, "train") == pool()[50:400]


def test_a_plain_file_beside_a_packed_one_is_not_taken_for_it() -> None:
    write(pool()[:50], "dev.en", "dev.de")
    write([("other", "anderes")], "c.en", "c.de")
    source, target = write(pool()[50:400], "c.en.gz", "c.de.gz")
    init(Path("my.toml"), source, target, validation="dev", test="dev")
    assert part(load_config("my.toml"), "train") == pool()[50:400]


# Languages


@pytest.mark.parametrize(
    ("source", "target", "languages"),
    [
        ("a.en", "a.de", ("en", "de")),
        ("a.en.gz", "b.no", ("en", "no")),
        ("a.en.txt", "a.zh_Hans.txt.gz", ("en", "zh_Hans")),
        ("a.txt", "b.txt", ("source", "target")),
        ("a", "b", ("source", "target")),
        ("x/a.en", "y/a.en", ("source", "target")),
        ("a.2024", "a.de", ("source", "de")),
        (".en", ".de", ("source", "target")),
    ],
)
def test_languages_from_suffixes(source: str, target: str, languages: tuple[str, str]) -> None:
    assert languages_of(Path(source), Path(target), None, None) == languages


def test_given_languages() -> None:
    assert languages_of(Path("a.txt"), Path("b.txt"), "en", "pt-BR") == ("en", "pt-BR")
    assert languages_of(Path("a.en"), Path("a.de"), "nl", None) == ("nl", "de")
    with pytest.raises(UserError, match="name them apart"):
        languages_of(Path("a.en"), Path("a.de"), "de", None)
    with pytest.raises(UserError, match="--target-language 'a/b' is not a code"):
        languages_of(Path("a.en"), Path("a.de"), None, "a/b")


@pytest.mark.parametrize("names", [("one.txt", "two.txt"), ("one", "two"), ("c.en.gz", "c.de.gz")])
def test_names(names: tuple[str, str]) -> None:
    source, target = write(pool()[:300], *names)
    init(Path("my.toml"), source, target)
    assert len(part(load_config("my.toml"), "validation")) == 50


# Scripts


def scribble(alphabet: str, blanks: bool, seed: int) -> Callable[[], str]:
    chance = random.Random(seed)
    words = ["".join(chance.choices(alphabet, k=chance.randint(1, 6))) for _ in range(300)]
    return lambda: (" " if blanks else "").join(chance.choices(words, k=chance.randint(5, 12))) + "。"


LATIN = "abcdefghijklmnopqrstuvwxyz"
HAN = "".join(map(chr, range(0x4E00, 0x4E80)))


@pytest.mark.parametrize(
    ("alphabet", "blanks", "scripts", "type", "shared"),
    [
        (LATIN, True, ("Latin",), "bpe", True),
        ("абвгдежзиклмнопрст", True, ("Cyrillic",), "bpe", False),
        ("ابتثجحخدذرزسش", True, ("Arabic",), "bpe", False),
        (HAN, False, ("Han",), "unigram", False),
        (HAN, True, ("Han",), "bpe", False),
        ("กขฃคฅฆงจฉชซฌญ", False, ("Thai",), "unigram", False),
        ("あいうえおかきくけこ" + HAN[:8], False, ("Kana", "Han"), "unigram", False),
        (LATIN + HAN[:30], False, ("Han", "Latin"), "unigram", True),
        ("0123456789", True, ("no letters",), "bpe", False),
    ],
)
def test_scripts(
    alphabet: str, blanks: bool, scripts: tuple[str, ...], type: str, shared: bool, folder: Path
) -> None:
    source, target = scribble(LATIN, True, 1), scribble(alphabet, blanks, 2)
    pairs = [(source(), target()) for _ in range(500)]
    assert look(pairs).target.scripts == scripts
    config = make(pairs)
    assert (config.tokenizer.type, config.tokenizer.shared) == (type, shared)
    data = prepare(config, folder / "prepared")
    assert len(data.target_tokenizer) == config.tokenizer.vocabulary_size


def test_more_characters_than_half_the_vocabulary_of_the_other_language(folder: Path) -> None:
    many = "".join(map(chr, range(0x4E00, 0x5600)))
    source, target = scribble(LATIN, True, 1), scribble(many, False, 2)
    config = make([(source(), target()) for _ in range(500)])
    assert config.tokenizer.shared, "apart, no one size suits both"
    prepare(config, folder / "prepared")


# What is advised


def test_larger_corpora_get_larger_models(monkeypatch: pytest.MonkeyPatch) -> None:
    profile = look(pool())
    plan = fit_tokenizer(profile)
    layout = Layout("t", "v", "e", ("en", "de"), {}, Path("x"), {}, 0)
    rows = []
    for n in (200, 2000, 5000, 15_000, 29_000, 150_000, 999_999, 5_000_000):
        kept = range(n)  # only its length is looked at
        choices = advise(type(profile)(**{**vars(profile), "kept": kept}), plan, layout)
        rows.append({choice.key: choice.value for choice in choices})
    assert [row["preset"] for row in rows] == ["tiny"] * 5 + ["small"] * 2 + ["base"]
    for row in rows:
        assert 0.02 <= row["warmup_steps"] / row["max_steps"] <= 0.2
        assert row["max_steps"] % row["validate_every"] == 0
        assert row["patience"] * row["validate_every"] > row["warmup_steps"]
    assert [tier.vocabulary for tier in TIERS] == sorted(tier.vocabulary for tier in TIERS)
    assert tier_of(29_000).learning_rate == 5e-3
    assert [row.get("norm") for row in rows] == ["pre"] * 5 + [None] * 3


@pytest.mark.parametrize("bytes_here", [False, True])
def test_the_precision_is_the_machine_s(bytes_here: bool) -> None:
    """Where it trains in int8 batches are large enough that it pays."""
    profile = look(pool())
    plan = fit_tokenizer(profile)
    layout = Layout("t", "v", "e", ("en", "de"), {}, Path("x"), {}, 0)
    found = []
    for n in (200, 15_000, 29_000, 150_000, 5_000_000):
        kept = range(n)
        choices = advise(
            type(profile)(**{**vars(profile), "kept": kept}), plan, layout, bytes_here=bytes_here
        )
        found.append({choice.key: choice.value for choice in choices}.get("precision", "float32"))
    large = ["int8"] * 3 if bytes_here else ["float32", "bfloat16", "bfloat16"]
    assert found == ["float32", "float32", *large]


def test_duplicates_and_copies_are_dropped_where_there_are_many() -> None:
    pairs = [*pool()[:400], *pool()[:100], *((s, s) for s, _ in pool()[400:430])]
    config = make(pairs)
    assert config.data.drop_duplicates
    assert config.data.drop_copies
    copying = [(s, s) for s, _ in pool()[:400]]
    assert not make(copying, force=True).data.drop_copies, "copying may be the task"


def test_repetitive_text_gets_the_vocabulary_it_allows(folder: Path) -> None:
    chance = random.Random(1)
    pairs = [(" ".join(chance.choices("ab", k=12)), " ".join(chance.choices("cd", k=12))) for _ in range(300)]
    config = make(pairs)
    assert config.tokenizer.vocabulary_size < 600
    prepare(config, folder / "prepared")


# Hostile text

HOSTILE = [
    "\u2028",
    "a\tb",
    "nul \x00 nul",
    "cr\r",
    "cr\r\r",
    "\x85 \x0c",
    "\ufeff mark",
    "▁",
    " ",
    "",
    "x" * 9000,
]


def test_hostile_lines_come_through_unchanged() -> None:
    hostile = [(line, f"{line} t{i}") for i, line in enumerate(HOSTILE)]
    pairs = [*hostile, *pool()[:300], *hostile]
    source, target = Path("h.en"), Path("h.de")
    # The carriage return of a Windows line end is not part of the line.
    source.write_bytes("".join(f"{s}\r\n" for s, _ in pairs).encode())
    target.write_bytes("".join(f"{t}\n" for _, t in pairs).encode())
    read = list(zip(read_lines(source), read_lines(target), strict=True))
    init(Path("my.toml"), source, target)
    config = load_config("my.toml")
    parts = [part(config, name) for name in ("train", "validation", "test")]
    assert_apart(*parts)
    assert sum((p.count(pair) for p in parts for pair in set(read)), 0) == sum(map(len, parts))
    held = set(parts[1] + parts[2])
    assert [pair for pair in read if pair not in held] == parts[0]


@settings(max_examples=25, deadline=None)
@given(st.lists(st.tuples(st.text(max_size=3), st.text(max_size=3)), max_size=300), st.integers(0, 3))
def test_split_is_a_partition_without_overlap(odd: Pairs, seed: int) -> None:
    corpus = Corpus(Path("s"), Path("t"), "s", "t", odd + pool()[:250])
    split = split_corpus(corpus, {}, seed=seed)
    assert_apart(split.train, split.held_out["validation"], split.held_out["test"])
    assert len(split.train) + 100 + split.removed == len(corpus.pairs)
    assert split_corpus(corpus, {}, seed=seed) == split


# Mistakes


def fails(
    match: str, config: str = "my.toml", *, source: str = "c.en", target: str = "c.de", **more: str
) -> None:
    with pytest.raises(UserError, match=match) as caught:
        init(Path(config), Path(source), Path(target), **more)  # type: ignore[arg-type]
    assert "\n" not in str(caught.value)
    assert not Path("my-data").exists()
    assert not list(Path.cwd().glob("**/.*partial*"))


def test_mistakes_in_the_files() -> None:
    write(pool()[:300], "c.en", "c.de")
    fails("no such file", source="missing.en")
    Path("folder.en").mkdir()
    fails("a folder, not a file", source="folder.en")
    fails("given as source and as target", target="c.en")
    Path("link.de").symlink_to("c.en")
    fails("given as source and as target", target="link.de")
    Path("empty.en").touch()
    fails("the file is empty", source="empty.en")
    write(pool()[:1], "one.en", "one.de")
    fails("1 usable sentence pairs of 1", source="one.en", target="one.de")
    write([*pool()[:199], ("", "")], "few.en", "few.de")
    fails("199 usable sentence pairs of 200", source="few.en", target="few.de")
    write(pool()[:299], "short.en", "short.de")
    fails(r"300 lines, but short\.de has 299", target="short.de")
    Path("bad.en").write_bytes(b"good\nb\xffd\n")
    fails(r"bad\.en:2: byte 2 is not valid UTF-8", source="bad.en")
    write([pool()[0]] * 300, "same.en", "same.de")
    fails("repeat each other so much", source="same.en", target="same.de")
    fails(r"neither dev\.en nor dev\.en\.gz", validation="dev")
    fails("hardly a pair is left", validation="c", test="c")


def test_nothing_is_overwritten() -> None:
    write(pool()[:300], "c.en", "c.de")
    Path("old.toml").write_text("mine")
    fails(r"old\.toml: exists already", "old.toml")
    Path("other-data").mkdir()
    fails("other-data: exists already", "other.toml")
    Path("is-folder").mkdir()
    fails("is a folder", "is-folder")
    fails("is not a folder", "c.en/my.toml")
    # Even --force removes only what init writes.
    init(Path("old.toml"), Path("c.en"), Path("c.de"), force=True)
    assert load_config("old.toml").data.train == "old-data/train"
    Path("old-data/notes").touch()
    with pytest.raises(UserError, match=r"would remove \(notes\)"):
        init(Path("old.toml"), Path("c.en"), Path("c.de"), force=True)
    Path("old-data/notes").unlink()
    for source, target in (("old-data/train.en", "old-data/train.de"), ("old.toml", "c.de")):
        before = Path(source).read_bytes()
        with pytest.raises(UserError, match=r"would be replaced|an input as well"):
            init(Path("old.toml"), Path(source), Path(target), force=True)
        assert Path(source).read_bytes() == before


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_that_may_not_be_written() -> None:
    write(pool()[:300], "c.en", "c.de")
    Path("locked").mkdir(mode=0o500)
    fails("may not be written into", "locked/my.toml")


@pytest.mark.parametrize("what", ["_write_parts", "written_after"])
def test_a_failed_write_changes_nothing(monkeypatch: pytest.MonkeyPatch, what: str) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device", "my.toml")

    def files() -> dict[str, bytes]:
        return {str(path): path.read_bytes() for path in Path().rglob("*") if path.is_file()}

    source, target = write(pool()[:300], "c.en", "c.de")
    before = files()
    with monkeypatch.context() as patch:
        patch.setattr(f"nmt.holdout.{what}", full)
        fails("No space left on device")
    assert files() == before
    init(Path("my.toml"), source, target)
    before = files()
    assert {"my.toml", "my-data/train.en"} < set(before)
    monkeypatch.setattr(f"nmt.holdout.{what}", full)
    with pytest.raises(UserError, match="No space left on device"):
        init(Path("my.toml"), source, target, force=True)
    assert files() == before


def test_names_that_toml_must_escape() -> None:
    source, target = write(pool()[:300], 'a "b" \x7f\n\\.en', "é.de")
    name = 'q"\\ \x7f\n.toml'
    init(Path(name), source, target)
    assert load_config(name).data.train == 'q"\\ \x7f\n-data/train'
    assert tomllib.loads(Path(name).read_text(encoding="utf-8"))["tokenizer"]["shared"]


def test_the_command_line_starts_without_what_init_needs() -> None:
    code = "import sys, nmt.cli.main; print({'numpy', 'sentencepiece', 'pydantic', 'torch'} & {*sys.modules})"
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert told.stdout == "set()\n"


def test_init_itself_needs_no_torch() -> None:
    source, target = write(pool()[:300])
    code = f"""
import sys, pathlib, nmt.cli.init
nmt.cli.init.init(pathlib.Path("my.toml"), pathlib.Path({str(source)!r}), pathlib.Path({str(target)!r}))
print("torch" in sys.modules)
"""
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert told.stdout == "False\n"
