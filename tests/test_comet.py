"""COMET beside sacreBLEU's metrics, with a stand-in for its package: what it is given, what comes of it."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
from sacrebleu_command import ORDINARY, disturbed, write
from support import Nmt

from nmt.comet import comet_metric
from nmt.errors import UserError
from nmt.evaluation import scores_of
from nmt.metric_set import MetricSet
from nmt.significance import TESTS, paired_test

NAME = "Unbabel/wmt22-comet-da"
SOURCES = [line.upper() for line in ORDINARY]


class StandIn(ModuleType):
    """The parts of `comet` that we call; the score is the share of words in the reference."""

    def __init__(self) -> None:
        super().__init__("comet")
        self.asked: list[Any] = []

    def download_model(self, name: str) -> str:
        if name != NAME:
            raise KeyError(f"Model '{name}' not supported")
        return f"/models/{name}.ckpt"

    def load_from_checkpoint(self, path: str) -> Any:
        self.asked.append(path)
        return SimpleNamespace(predict=self.predict)

    def predict(self, lines: list[dict[str, str]], batch_size: int, gpus: int, progress_bar: bool) -> Any:
        self.asked.append((len(lines), gpus, lines[0]))
        scores = []
        for line in lines:
            right = line["ref"].split()
            scores.append(sum(word in right for word in line["mt"].split()) / max(1, len(right)))
        return SimpleNamespace(scores=scores, system_score=sum(scores) / len(scores))


@pytest.fixture
def comet(monkeypatch: pytest.MonkeyPatch) -> StandIn:
    module = StandIn()
    monkeypatch.setitem(sys.modules, "comet", module)
    return module


def test_scores_intervals_and_tests(comet: StandIn) -> None:
    metrics = MetricSet(
        [ORDINARY, SOURCES], names=["bleu"], extra=[comet_metric(NAME, SOURCES, [ORDINARY, SOURCES])]
    )
    systems = {"a": disturbed(ORDINARY, seed=0), "b": [line[:12] for line in ORDINARY]}
    bleu, found = scores_of(systems["a"], metrics, confidence=True)
    assert (bleu.metric, found.metric) == ("BLEU", "COMET")
    line = {"src": SOURCES[0], "mt": systems["a"][0], "ref": ORDINARY[0]}
    assert comet.asked == [f"/models/{NAME}.ckpt", (60, 0, line)]
    expected = np.array([counts[0] for counts in metrics.statistics("COMET", systems["a"])])
    assert found.score == pytest.approx(expected.mean())
    assert "nrefs:1|bs:1000|seed:12345|" in found.signature
    assert f"comet:{NAME}|version:" in found.signature
    # The mean of lines drawn with sacreBLEU's seed.
    drawn = np.random.default_rng(12345).choice(60, size=(1000, 60), replace=True)
    means = np.sort(expected[drawn].mean(axis=1))
    assert found.mean == pytest.approx(means.mean(), abs=1e-5)
    assert found.half_width == pytest.approx((means[974] - means[25]) / 2, abs=1e-5)
    for test in TESTS:
        p_value = paired_test(test, systems, metrics).comparisons["b"]["COMET"].p_value
        assert 0 < p_value < 0.05
    assert len(comet.asked) == 3  # each system once


def test_command(comet: StandIn, tmp_path: Path) -> None:
    nmt = Nmt(tmp_path)
    write(tmp_path / "s.en", SOURCES)
    write(tmp_path / "r.de", ORDINARY)
    write(tmp_path / "a.de", disturbed(ORDINARY, seed=0))
    given = ["evaluate", "--system", "a=a.de", "--reference", "r.de", "--device", "cpu"]
    rows = json.loads(nmt(*given, "--source", "s.en", "--comet", NAME, "--json").stdout)
    assert [row["metric"] for row in rows] == ["BLEU", "chrF2", "chrF2++", "TER", "COMET"]
    assert rows[4]["confidence_low"] < rows[4]["score"] < rows[4]["confidence_high"] < 1
    lines = nmt(*given, "--source", "s.en", "--comet", NAME).lines
    assert any(line.split()[:3] == ["a", "COMET", f"{rows[4]['score']:.4f}"] for line in lines)
    assert "--comet looks at the source" in nmt.error(*given, "--comet", NAME)
    said = nmt.error(*given, "--source", "s.en", "--comet", "other")
    assert "--comet other: the model cannot be loaded (KeyError: \"Model 'other' not supported\")" in said


def test_a_checkpoint_file(comet: StandIn, tmp_path: Path) -> None:
    (tmp_path / "m.ckpt").write_bytes(b"x")
    comet_metric(str(tmp_path / "m.ckpt"), ["a"], [["b"]])
    assert comet.asked == [str(tmp_path / "m.ckpt")]


def test_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "comet", None)
    with pytest.raises(UserError, match=r"which is not installed; in .* run pip install -e '\.\[metrics\]'"):
        comet_metric(NAME, [], [[]])
