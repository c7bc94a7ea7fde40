"""Heads of a model on a text, and what it loses without one of them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from small_models import MODELS, make, prefixes, random_source

from nmt import head_scores
from nmt.attention_maps import KINDS, attention_maps, make_pairs
from nmt.checkpoint import LoadedModel, load_model
from nmt.evaluation import bleu
from nmt.forced import log_probabilities
from nmt.head_analysis import LEAST_ROWS, Head, all_heads, analyse, importance, masked
from nmt.metric_set import MetricSet
from nmt.models import attention as attention_module
from nmt.models.transformer import Transformer
from nmt.translator import Translator

RUN = "runs/tiny"
SOURCES = ["The dog sees the dog.", "Paris sees the old house.", "The dog sees the old dog and the dog."]
TARGETS = ["Der Hund sieht den Hund.", "Paris sieht das Haus.", "Der Hund und der Hund und der Hund."]


@pytest.fixture(scope="module")
def loaded(tiny_run: Path) -> LoadedModel:
    return load_model(tiny_run / RUN)


def test_the_scores_are_those_of_all_rows(loaded: LoadedModel) -> None:
    """Whatever the order of the sentences, and as computed with all maps at hand."""
    pairs, _ = make_pairs(loaded, SOURCES, TARGETS)
    found = analyse(loaded, pairs)
    again = analyse(loaded, pairs[::-1])
    for one, two in zip(found.heads, again.heads, strict=True):
        assert one.head == two.head
        assert one.entropy == pytest.approx(two.entropy, abs=1e-5)
    assert [report.head for report in found.heads] == [
        Head(kind, 1, head) for kind in KINDS for head in (1, 2)
    ]
    sums = [head_scores.entropy(maps["cross"])[0] for _, maps in attention_maps(loaded, pairs)]
    expected = sum(s.values_LH[0, 1] for s in sums) / sum(s.rows for s in sums)
    assert found.heads[-1].entropy == pytest.approx(expected, abs=1e-5)
    kinds = {kind: [r for r in found.heads if r.head.kind == kind] for kind in KINDS}
    assert all(r.induction is None and r.copying is not None for r in kinds["cross"])
    assert all(r.copying is None and r.induction is not None for r in kinds["encoder"] + kinds["decoder"])
    assert all(r.after is None for r in kinds["decoder"])  # nothing comes after yet
    ranked = found.ranked("induction")
    assert [r.induction for r in ranked] == sorted([r.induction for r in ranked], reverse=True)  # type: ignore[type-var]
    assert {r.head.kind for r in found.ranked("copying")} == {"cross"}


def test_a_text_without_what_is_looked_for(loaded: LoadedModel) -> None:
    pairs, _ = make_pairs(loaded, ["A"], ["B"])
    found = analyse(loaded, pairs)
    assert all(report.copying is None and report.induction is None for report in found.heads)


# Without a head


def hooked(model: Transformer, head: Head, monkeypatch: pytest.MonkeyPatch) -> None:
    """Set a head's output to zero where it is computed, in place of in the matrix after it."""
    layers = model.encoder if head.kind == "encoder" else model.decoder
    name = {"encoder": "attention", "decoder": "self_attention", "cross": "cross_attention"}[head.kind]
    projections = getattr(layers[head.layer - 1], name)
    merge = attention_module.MultiHeadProjections.merge

    def without(context_BHQN: torch.Tensor, live: object = None) -> torch.Tensor:
        context_BHQN = context_BHQN.clone()
        context_BHQN[:, head.head - 1] = 0
        return merge(projections, context_BHQN, live)  # type: ignore[arg-type]

    monkeypatch.setattr(projections, "merge", without)


@pytest.mark.parametrize("name", [name for name in MODELS if name.startswith(("post", "pre"))])
def test_masking_is_exact_and_undone(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model = make(name)
    generator = torch.Generator().manual_seed(3)
    source_BS, target_BT = random_source([7, 4], generator), prefixes(2, 6, generator)

    def logits() -> torch.Tensor:
        with torch.inference_mode():
            found: torch.Tensor = model.project(
                model.decode(target_BT, model.encode(source_BS, source_BS > 0))
            )
            return found

    whole = logits()
    heads = all_heads(model)
    assert len(heads) == 3 * 2 * 2
    for head in heads:
        with masked(model, head):
            found = logits()
        with monkeypatch.context() as patch:
            hooked(model, head, patch)
            torch.testing.assert_close(found, logits())
        assert (found - whole).abs().max() > 1e-3
        assert torch.equal(logits(), whole)


def test_importance(loaded: LoadedModel) -> None:
    pairs, _ = make_pairs(loaded, SOURCES, TARGETS)
    found = importance(loaded, pairs, [TARGETS])
    assert list(found.by_head) == all_heads(loaded.model)
    sources, targets = [p.source_ids for p in pairs], [p.target_ids for p in pairs]

    def loss() -> float:
        return -float(np.concatenate(log_probabilities([loaded], sources, targets)).mean())

    def score() -> float:
        return bleu([t.text for t in Translator.of(loaded).translate(SOURCES)], TARGETS)

    assert found.loss == pytest.approx(loss())
    assert found.bleu_signature == MetricSet([TARGETS], names=["bleu"]).signature("BLEU")
    assert found.bleu == pytest.approx(score())
    head = Head("decoder", 1, 2)
    with masked(loaded.model, head):
        assert found.by_head[head].loss == pytest.approx(loss() - found.loss, abs=1e-6)
        assert found.by_head[head].bleu == pytest.approx(found.bleu - score())
    assert importance(loaded, pairs).bleu is None


def test_few_rows_make_no_head_positional(loaded: LoadedModel) -> None:
    """Of one short sentence the last offset has one row, which is always all of them or none."""
    pairs, _ = make_pairs(loaded, ["a"], ["b"])
    for report in analyse(loaded, pairs).heads:
        assert (report.offset, report.offset_share, report.offset_rows) == (None, None, None)
        assert not report.positional
    pairs, _ = make_pairs(loaded, SOURCES, TARGETS)
    found = analyse(loaded, pairs).heads
    assert any(report.offset is not None for report in found)
    assert all(report.offset_rows is None or report.offset_rows >= LEAST_ROWS for report in found)
