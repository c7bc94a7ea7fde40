"""Scores and signatures are those of sacreBLEU's own command line on the same files, whatever they hold."""

from __future__ import annotations

import gzip
import subprocess
import sys
from pathlib import Path
from unittest.mock import Mock

import pytest
import sacrebleu.metrics.bleu as bleu_module
from conftest import REAL_DATA
from sacrebleu_command import DIGITS, HOSTILE, ORDINARY, disturbed, hostile_lines, printed, single

from nmt.data.corpus import read_lines
from nmt.errors import UserError
from nmt.evaluation import scores_of
from nmt.metric_set import MetricOptions, MetricSet, check_seed, default_tokenizer, make_metric

NAMES = ["BLEU", "chrF2", "chrF2++", "TER"]
TEXTS = {"ordinary": ORDINARY, "hostile": HOSTILE}


def options_of(options: MetricOptions) -> list[str]:
    """The same for sacreBLEU's command line."""
    lowercase = options.lowercase if options.chrf_lowercase is None else options.chrf_lowercase
    return [
        *(["--tokenize", options.tokenize] if options.tokenize else []),
        *(["--lowercase"] if options.lowercase else []),
        *(["--chrf-lowercase"] if lowercase else []),
        *(["--ter-case-sensitive"] if options.ter_case_sensitive else []),
    ]


def compare(
    folder: Path, hypotheses: list[str], references: list[list[str]], options: MetricOptions
) -> list[float]:
    expected = single(folder, hypotheses, references, *options_of(options))
    # As a user's files are read, which is where texts could become others.
    files = [folder / "system0", *(folder / f"reference.{i}" for i in range(len(references)))]
    system, *right = (list(read_lines(file)) for file in files)
    found = scores_of(system, MetricSet(right, options))
    assert [f.metric for f in found] == list(expected) == NAMES
    assert [printed(f.score) for f in found] == [e["score"] for e in expected.values()]
    assert [f.signature for f in found] == [e["signature"] for e in expected.values()]
    return [f.score for f in found]


@pytest.mark.parametrize(
    ("text", "references", "options"),
    [
        ("ordinary", 1, MetricOptions()),
        ("ordinary", 3, MetricOptions("intl", lowercase=True, chrf_lowercase=False)),
        ("hostile", 2, MetricOptions("char", lowercase=True, ter_case_sensitive=True)),
        ("hostile", 1, MetricOptions("zh", chrf_lowercase=True)),
    ],
)
def test_scores_are_those_of_the_sacrebleu_command(
    tmp_path: Path, text: str, references: int, options: MetricOptions
) -> None:
    lines = TEXTS[text]
    right = [lines, *(disturbed(lines, seed=i) for i in range(1, references))]
    found = compare(tmp_path, disturbed(lines, seed=0), right, options)
    assert all(0 < score < 100 for score in found)


def real_files() -> list[tuple[Path, int]]:
    """Ten files of real text, and where to begin in them."""
    hansard, raw, tok = REAL_DATA / "hansard", REAL_DATA / "multi30k/raw", REAL_DATA / "multi30k/tok"
    tests = [
        raw / f"{test}.{language}.gz" for test in ("test_2016_flickr", "val") for language in ("de", "fr")
    ]
    tests += [tok / f"test_2017_mscoco.lc.norm.tok.{language}.gz" for language in ("de", "en")]
    noisy = [hansard / f"{part}.{language}.gz" for part in ("test", "train") for language in ("fr", "en")]
    return [(file, 20 * number) for number, file in enumerate([*tests, *noisy])]


ALL_OPTIONS = [
    MetricOptions(tokenize, lowercase, chrf_lowercase, ter)
    for tokenize, lowercase, chrf_lowercase, ter in (
        (None, False, None, False),
        (None, True, None, True),
        ("none", False, True, True),
        ("intl", True, False, False),
        ("char", False, None, True),
        ("zh", True, None, False),
    )
]


@pytest.mark.slow
@pytest.mark.parametrize("number", range(20))
def test_scores_of_real_and_hostile_files(tmp_path: Path, number: int) -> None:
    """Ten files of real text, disturbed, and ten of hostile lines; every tokenizer and case option."""
    if number < 10:
        file, start = real_files()[number]
        if not file.exists():
            pytest.skip("needs ../shared/data, which is not part of the project")
        lines = list(read_lines(file))[start : start + 80]
    else:
        lines = hostile_lines(40, seed=number)
    right = [lines, disturbed(lines, seed=100 + number)][: 1 + number % 2]
    for options in ALL_OPTIONS:
        compare(tmp_path, disturbed(lines, seed=number), right, options)


@pytest.mark.slow
@pytest.mark.parametrize("tokenize", ["ja-mecab", "ko-mecab", "spm", "flores101", "flores200", "spBLEU-1K"])
def test_tokenizers_that_need_more(tmp_path: Path, tokenize: str) -> None:
    try:
        make_metric("bleu", MetricOptions(tokenize))
    except UserError as error:
        pytest.skip(str(error))
    compare(tmp_path, disturbed(HOSTILE, seed=0), [HOSTILE], MetricOptions(tokenize))


def test_files_are_read_as_sacrebleu_reads_them(tmp_path: Path) -> None:
    """Gzip, carriage returns before newlines, a missing last newline, line separators of Unicode."""
    text = "Das ist ein Haus .\r\nein\u2028Hund\x0c läuft schnell\x1c\r\n\r\nkein Ende hier und nirgends"
    (tmp_path / "a").write_bytes(text.encode())
    (tmp_path / "a.gz").write_bytes(gzip.compress(text.encode()))
    (tmp_path / "right").write_text("Das ist ein Haus .\nein Hund läuft\n\nkein Ende hier\n")
    for name in ("a", "a.gz"):
        done = subprocess.run(
            [sys.executable, "-m", "sacrebleu", "right", "-i", name, "-b", "-w", str(DIGITS)],
            cwd=tmp_path,
            capture_output=True,
            check=True,
        )
        lines = list(read_lines(tmp_path / name))
        assert len(lines) == 4
        found = scores_of(lines, MetricSet([list(read_lines(tmp_path / "right"))]))
        assert printed(found[0].score) == float(done.stdout) > 0


def test_a_tokenizer_that_sacrebleu_has_not() -> None:
    with pytest.raises(UserError, match=r"--tokenize 13b is not one of sacreBLEU's: 13a, .*none"):
        MetricSet([["a"]], MetricOptions("13b"))


def test_a_tokenizer_that_needs_what_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(name: str) -> None:
        raise ImportError("no mecab")

    monkeypatch.setattr("sacrebleu.metrics.bleu._get_tokenizer", fail)
    with pytest.raises(UserError, match=r"--tokenize ja-mecab cannot be used here \(no mecab\); install"):
        make_metric("bleu", MetricOptions("ja-mecab"))


@pytest.mark.parametrize("seed", ["", "x", "-1", "1.5", "٣"])
def test_a_wrong_seed(monkeypatch: pytest.MonkeyPatch, seed: str) -> None:
    monkeypatch.setenv("SACREBLEU_SEED", seed)
    with pytest.raises(UserError, match=r"SACREBLEU_SEED is .*; set it to a whole number from 0"):
        check_seed()


def test_lines_are_counted_once(monkeypatch: pytest.MonkeyPatch) -> None:
    metrics = MetricSet([ORDINARY], names=["chrf"])
    metric, calls = metrics.metrics["chrF2"], 0
    compute = metric._compute_segment_statistics

    def counting(*given: object) -> object:
        nonlocal calls
        calls += 1
        return compute(*given)

    monkeypatch.setattr(metric, "_compute_segment_statistics", counting)
    first, second = disturbed(ORDINARY, seed=1), disturbed(ORDINARY, seed=2)
    found = [scores_of(lines, metrics)[0].score for lines in (first, second, first)]
    assert calls == 2 * len(ORDINARY)
    assert found[0] == found[2] != found[1]


def test_words_are_those_of_bleu() -> None:
    assert MetricSet([["a"]], names=["bleu"]).words("Ein Hund, 1,5 m.") == [
        "Ein",
        "Hund",
        ",",
        "1,5",
        "m",
        ".",
    ]
    lower = MetricSet([["a"]], MetricOptions("none", lowercase=True), names=["bleu"])
    assert lower.words("Ein Hund, ") == ["ein", "hund,"]


@pytest.mark.parametrize("language", ["zh", "ja", "ko", "th", "de", "no", ""])
def test_the_default_tokenizer_is_that_of_sacrebleu(language: str, monkeypatch: pytest.MonkeyPatch) -> None:
    chosen: list[str] = []
    monkeypatch.setattr(bleu_module, "_get_tokenizer", lambda name: chosen.append(name) or Mock)
    bleu_module.BLEU(trg_lang=language)
    assert (default_tokenizer(language) or "13a") == chosen[0]


def test_other_codes_of_a_language() -> None:
    names = ["zh-CN", "zho_Hans", "cmn", "JPN", "jam", None, "zhuang"]
    assert [default_tokenizer(name) for name in names] == ["zh", "zh", "zh", "ja-mecab", None, None, None]


def test_the_fingerprint_tells_references_apart() -> None:
    sets = [[["a", "b"]], [["a"], ["b"]], [["b", "a"]], [["a", "b", ""]], [["ab"]]]
    assert len({MetricSet(references, names=["chrf"]).fingerprint for references in sets}) == len(sets)
    assert MetricSet([["a"]]).fingerprint == MetricSet([["a"]], MetricOptions("char")).fingerprint
