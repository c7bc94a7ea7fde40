"""Intervals and p-values are those of sacreBLEU's own command line, with the same seed."""

from __future__ import annotations

from pathlib import Path

import pytest
from sacrebleu_command import HOSTILE, ORDINARY, disturbed, hostile_lines, paired, printed

from nmt.metric_set import MetricSet
from nmt.significance import TESTS, paired_test

OPTIONS = {"bootstrap": "--paired-bs", "randomization": "--paired-ar"}


def compare(
    folder: Path, systems: dict[str, list[str]], references: list[list[str]], test: str, seed: int | None
) -> list[float]:
    """All p-values."""
    cells, signatures = paired(folder, list(systems.values()), references, OPTIONS[test], seed=seed)
    tested = paired_test(test, systems, MetricSet(references))
    first, *others = systems
    p_values = []
    for metric, of_metric in cells.items():
        for name, cell in zip(systems, of_metric, strict=True):
            score = tested.scores[name][metric]
            assert printed(score.score) == cell.score
            assert score.signature == signatures[metric]
            if test == "bootstrap":
                assert score.mean is not None
                assert score.half_width is not None
                assert (printed(score.mean), printed(score.half_width)) == (cell.mean, cell.half_width)
                assert type(score.mean) is type(score.half_width) is float  # JSON knows no float32
            else:
                assert score.mean is cell.mean is None
        assert of_metric[0].p_value is None
        for name, cell in zip(others, of_metric[1:], strict=True):
            found = tested.comparisons[name][metric]
            assert (found.test, found.baseline, found.signature) == (test, first, signatures[metric])
            assert float(f"{found.p_value:.4f}") == cell.p_value  # as many digits as the command prints
            p_values.append(found.p_value)
    assert first not in tested.comparisons
    return p_values


@pytest.mark.parametrize(
    ("test", "seed"), [("bootstrap", None), pytest.param("randomization", 7, marks=pytest.mark.slow)]
)
def test_paired_tests_are_those_of_the_sacrebleu_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, test: str, seed: int | None
) -> None:
    monkeypatch.delenv("SACREBLEU_SEED", raising=False)
    if seed is not None:
        monkeypatch.setenv("SACREBLEU_SEED", str(seed))
    lines = ORDINARY[:40] if test == "randomization" else ORDINARY
    systems = {
        "good": disturbed(lines, seed=0),
        "alike": disturbed(lines, seed=2),
        "bad": disturbed(disturbed(disturbed(disturbed(lines, seed=3), seed=4), seed=5), seed=6),
    }
    p_values = compare(tmp_path, systems, [lines], test, seed)
    # What differs much is told from what differs little.
    assert min(p_values) < 0.01
    assert max(p_values) > 0.05


@pytest.mark.slow
@pytest.mark.parametrize("test", TESTS)
@pytest.mark.parametrize("seed", [None, 1])
@pytest.mark.parametrize("number", range(3))
def test_paired_tests_of_hostile_text(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, test: str, seed: int | None, number: int
) -> None:
    monkeypatch.delenv("SACREBLEU_SEED", raising=False)
    if seed is not None:
        monkeypatch.setenv("SACREBLEU_SEED", str(seed))
    lines = [*HOSTILE, *hostile_lines(20, seed=number)]
    systems = {"a": disturbed(lines, seed=number), "b": disturbed(lines, seed=number + 9), "right": lines}
    references = [lines, disturbed(lines, seed=number + 3)][: 1 + number % 2]
    compare(tmp_path, systems, references, test, seed)


def test_a_system_compared_with_itself() -> None:
    """sacreBLEU gives the least p-value there is where there is no difference at all: `differs` says it."""
    lines = disturbed(ORDINARY, seed=0)
    systems = {"a": lines, "b": list(lines), "c": disturbed(ORDINARY, seed=1)}
    for test in TESTS:
        tested = paired_test(test, systems, MetricSet([ORDINARY], names=["bleu"]))
        assert not tested.comparisons["b"]["BLEU"].differs
        assert tested.comparisons["c"]["BLEU"].differs


def test_one_test_after_the_other_changes_nothing() -> None:
    systems = {"a": disturbed(ORDINARY, seed=0), "b": disturbed(ORDINARY, seed=1)}
    metrics = MetricSet([ORDINARY], names=["bleu"])
    found = [paired_test(test, systems, metrics) for test in ("bootstrap", "randomization", "bootstrap")]
    assert found[0] == found[2]
    signature = found[1].comparisons["b"]["BLEU"].signature
    assert "|ar:10000|seed:12345|" in signature
    assert "bs:" not in signature
