"""Guided alignment: its loss by hand, its gradient however batches are shared out, the keys that set it."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from support import TINY
from test_gradient import BATCHES, SMOOTHING, TOKENS, assert_same, grads, model_of, reference
from test_sharded import everyone, flat, gradients, sharded

from nmt.config import Config
from nmt.config_file import dump_config, parse_config
from nmt.data.batches import Batch
from nmt.data.tokenizer import PAD
from nmt.errors import UserError
from nmt.gradient import Gradient, size, split
from nmt.guided import Guided, alignment_loss
from nmt.models.recompute import recompute_layers
from nmt.parameters import Parameters
from nmt.precision import Precision
from nmt.ranks import Ranks
from nmt.training import guided_head

WEIGHT = 0.3
# Model, layer and head, from 0.
GUIDED = [
    ("pre-sinusoidal", 0, 1),
    ("post-learned", 1, 0),
    ("bahdanau-tied", 0, 0),
    ("luong-general-global-fed", 0, 0),
    ("luong-dot-local-p-unfed", 0, 0),
]


def with_links(batch: Batch, seed: int) -> Batch:
    """Some source tokens for some target tokens; one sentence of several has none."""
    chance = np.random.default_rng(seed)
    links = []
    for row in range(len(batch.source_BS) - (len(batch.source_BS) > 2)):
        sizes = [int((side[row] != PAD).sum()) - 1 for side in (batch.source_BS, batch.target_output_BT)]
        for t in range(sizes[1]):
            chosen = chance.choice(sizes[0], min(sizes[0], int(chance.integers(0, 4))), replace=False)
            links += [(row, int(s), t) for s in sorted(chosen)]
    return replace(batch, links_N3=np.array(links, dtype=np.int64).reshape(-1, 3))


LINKED = [with_links(batch, seed) for seed, batch in enumerate(BATCHES)]


def gradient_of(model: Any, guided: Guided | None, **options: Any) -> Gradient:
    scaler = torch.amp.GradScaler("cpu", enabled=False)
    settings: dict[str, Any] = dict(precision=Precision(), smoothing=SMOOTHING, scaler=scaler, guided=guided)
    return Gradient(model, torch.device("cpu"), **settings, **options)


# The loss


def by_hand(weights_TS: torch.Tensor, links: list[tuple[int, int]]) -> torch.Tensor:
    """One sentence: links of (source, target)."""
    total = torch.zeros((), dtype=weights_TS.dtype)
    for t in range(len(weights_TS)):
        linked = [s for s, target in links if target == t]
        for s in linked:
            # Outside of a local window attention is 0.
            total = total - weights_TS[t, s].clamp_min(1e-20).log() / len(linked)
    return total


def test_loss_is_the_formula() -> None:
    generator = torch.Generator().manual_seed(1)
    weights_BTS = torch.rand(3, 4, 5, generator=generator, dtype=torch.float64).softmax(-1)
    links = [(0, 0, 0), (0, 4, 0), (0, 2, 3), (2, 1, 1), (2, 0, 1), (2, 3, 1)]
    expected = sum(by_hand(weights_BTS[row], [(s, t) for b, s, t in links if b == row]) for row in range(3))
    found = alignment_loss(weights_BTS, np.array(links))
    assert found.item() == pytest.approx(float(expected), rel=1e-14)


def test_attention_of_zero_gives_a_finite_loss_and_gradient() -> None:
    weights_BTS = torch.tensor([[[0.0, 1.0]]], requires_grad=True)
    loss = alignment_loss(weights_BTS, np.array([[0, 0, 0]]))
    loss.backward()
    assert loss.item() == pytest.approx(-math.log(1e-20), rel=1e-6)
    assert weights_BTS.grad is not None
    assert weights_BTS.grad.isfinite().all()


# The gradient


def guided_reference(name: str, layer: int, head: int) -> torch.Tensor:
    """Sentence by sentence, from all attention the model records."""
    model = model_of(name)
    for batch in LINKED:
        assert batch.links_N3 is not None
        for row in range(len(batch.source_BS)):
            links = [(s, t) for b, s, t in batch.links_N3.tolist() if b == row]
            if not links:
                continue
            source = torch.from_numpy(batch.source_BS[row : row + 1])
            source = source[:, source[0] != PAD]
            length = int((batch.target_output_BT[row] != PAD).sum())
            tokens = torch.from_numpy(batch.target_input_BT[row : row + 1])[:, :length]
            record: list[torch.Tensor] = []
            model.decode(tokens, model.encode(source, source != PAD), record)
            weights_TS = record[:: model.recorded_a_layer][layer][0, head]
            (WEIGHT / TOKENS * by_hand(weights_TS, links)).backward()
    missing = [p for p in model.parameters() if p.grad is None]
    for parameter in missing:
        parameter.grad = torch.zeros_like(parameter)
    return reference(name) + grads(model)


@pytest.mark.parametrize(("name", "layer", "head"), GUIDED)
def test_gradient_is_that_of_single_sentences(name: str, layer: int, head: int) -> None:
    model = model_of(name)
    gradient = gradient_of(model, Guided(WEIGHT, layer, head))
    losses = gradient.of_step(LINKED, [1, 2, 3, 4], TOKENS)
    expected = guided_reference(name, layer, head)
    assert_same(grads(model), expected)
    assert (expected - reference(name)).norm() > 1e-3 * expected.norm(), "the guided loss should matter"
    # What is reported is the loss of the translation alone.
    assert losses == pytest.approx([gradient_of(model, None).loss_alone(b) for b in BATCHES], rel=1e-12)


@pytest.mark.parametrize(("name", "layer", "head"), GUIDED[:3])
@pytest.mark.parametrize("most_tokens", [1, 13, 25])
def test_gradient_of_parts(name: str, layer: int, head: int, most_tokens: int) -> None:
    """As after memory ran out."""
    model = model_of(name)
    gradient = gradient_of(model, Guided(WEIGHT, layer, head))
    gradient.most_tokens = most_tokens
    gradient.of_step(LINKED, [1, 2, 3, 4], TOKENS)
    assert_same(grads(model), guided_reference(name, layer, head))


def test_parts_have_their_own_links() -> None:
    for batch in LINKED:
        parts = split(batch, size(batch) // 3)
        found, first = [], 0
        for part in parts:
            assert part.links_N3 is not None
            found += [(row + first, s, t) for row, s, t in part.links_N3.tolist()]
            first += len(part.source_BS)
        assert batch.links_N3 is not None
        assert found == [tuple(link) for link in batch.links_N3.tolist()]


def test_layers_that_are_computed_again_give_the_same_gradient() -> None:
    name, layer, head = GUIDED[0]
    model = model_of(name)
    recompute_layers(model)
    gradient_of(model, Guided(WEIGHT, layer, head)).of_step(LINKED, [1, 2, 3, 4], TOKENS)
    assert_same(grads(model), guided_reference(name, layer, head))


@pytest.mark.parametrize("shard", [False, True])
@pytest.mark.parametrize(("name", "layer", "head"), [GUIDED[0], GUIDED[2]])
def test_several_processes(name: str, layer: int, head: int, shard: bool, tmp_path: Path) -> None:
    """Whole parameters everywhere, or a part in each process."""

    def work(ranks: Ranks) -> Any:
        model = model_of(name)
        parameters = sharded(name, ranks, model) if shard else Parameters(model, ranks)
        gradient = gradient_of(model, Guided(WEIGHT, layer, head), parameters=parameters)
        gradient.of_step(LINKED[ranks.rank :: 2], [0, 0], TOKENS)
        parameters.sum_gradients()
        return flat(parameters.whole(gradients(parameters)) or {"": torch.zeros(0)})

    assert_same(everyone(tmp_path, 2, work)[0], guided_reference(name, layer, head))


def test_with_two_passes_that_drop_nothing() -> None:
    name, layer, head = GUIDED[0]
    model = model_of(name)
    gradient_of(model, Guided(WEIGHT, layer, head), r_drop=5.0).of_step(LINKED, [1, 2, 3, 4], TOKENS)
    assert_same(grads(model), guided_reference(name, layer, head))


@pytest.mark.parametrize("batches", [BATCHES, LINKED])
def test_costs_nothing_when_off(batches: list[Batch], monkeypatch: pytest.MonkeyPatch) -> None:
    """No attention is recorded: without a guided head, and for batches without links."""
    model = model_of("pre-sinusoidal")
    decode, given = model.decode, []

    def watched(*arguments: Any, **options: Any) -> Any:
        given.append((arguments[2:], options))
        return decode(*arguments, **options)

    monkeypatch.setattr(model, "decode", watched)
    guided = None if batches is LINKED else Guided(WEIGHT, 0, 0)
    gradient_of(model, guided).of_step(batches, [1, 2, 3, 4], TOKENS)
    assert given == [((None, None), {})] * 4  # nothing is to be recorded
    assert torch.equal(grads(model), _plain())


def _plain() -> torch.Tensor:
    model = model_of("pre-sinusoidal")
    gradient_of(model, None).of_step(BATCHES, [1, 2, 3, 4], TOKENS)
    return grads(model)


def test_one_layer_alone_is_recorded() -> None:
    model = model_of("pre-sinusoidal")
    batch = BATCHES[0]
    source, tokens = torch.from_numpy(batch.source_BS), torch.from_numpy(batch.target_input_BT)
    every: list[torch.Tensor] = []
    model.decode(tokens, model.encode(source, source != PAD), every)
    for layer in range(2):
        one: list[torch.Tensor] = []
        model.decode(tokens, model.encode(source, source != PAD), one, layer)
        assert len(one) == 2
        assert all(torch.equal(a, b) for a, b in zip(one, every[2 * layer : 2 * layer + 2], strict=True))


# The configuration


def config_of(*changes: str) -> Config:
    return parse_config(TINY, overrides=changes)


ON = ("training.guided_alignment=0.05", 'data.alignments="corpus/train.align"')


def test_the_head_that_is_guided() -> None:
    assert guided_head(config_of()) is None
    assert config_of(*ON).guided_view == (1, 1)  # there is one layer
    deep = (*ON, "model.decoder_layers=3")
    assert config_of(*deep).guided_view == (2, 1)
    chosen = config_of(*deep, "training.guided_layer=3", "training.guided_head=2")
    assert guided_head(chosen) == Guided(0.05, 2, 1)
    assert parse_config(dump_config(chosen)) == chosen
    assert config_of("training.preset=luong2015", *ON).guided_view == (1, 1)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (ON[:1], "guided_alignment = 0.05 needs links of the training text; name them in data.alignments"),
        (ON[1:], "data.alignments are given and training.guided_alignment, their weight in the loss, is 0"),
        ((*ON, 'data.alignments=["a", "b"]'), "data.alignments has 2 entries for 1 corpora"),
        ((*ON, 'data.alignments=[""]'), "needs links of the training text"),
        ((*ON, "tokenizer.sampling=0.1"), "tokenizer.sampling = 0.1 segments words anew in each epoch"),
        ((*ON, "training.guided_layer=2"), "training.guided_layer = 2, and the decoder has 1; leave it out"),
        ((*ON, "training.guided_head=3"), "training.guided_head = 3, and the decoder has 2; choose 1 to 2"),
        (("training.guided_head=1",), "training.guided_head is of training.guided_alignment, which is 0"),
        ((*ON, "training.guided_alignment=-1"), "training.guided_alignment = -1 is not valid"),
        ((*ON, "data.alignment_words=space"), "data.alignment_words"),
    ],
)
def test_what_does_not_go_together(changes: tuple[str, ...], message: str) -> None:
    with pytest.raises(UserError) as caught:
        config_of(*changes)
    assert message in str(caught.value)


def test_a_model_without_attention() -> None:
    text = TINY.split("[model]")[0] + '[model]\narchitecture = "recurrent"\n'
    with pytest.raises(UserError, match=r"recurrent.* does not have; set it to 0"):
        parse_config(text, overrides=ON)
