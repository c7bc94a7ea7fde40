"""Step by step equals all at once; padding and later tokens change nothing; dropout is dropout.

Of every architecture; `test_incremental_luong.py` has Luong's, `test_transformer_variants.py` more of
the Transformer. B sentences, S source length, T target length, K hypotheses.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from small_models import MODELS, TARGET_VOCABULARY, make, prefixes, random_source
from torch import Tensor

from nmt.models.recurrent import Luong, Recurrent
from nmt.models.transformer import Transformer

CLOSE: dict[str, Any] = dict(rtol=1e-5, atol=1e-5)


@pytest.fixture(scope="module", params=[name for name in MODELS if not name.startswith("luong")])
def model(request: pytest.FixtureRequest) -> Any:
    return make(request.param)


def expected_last(model: Any, source_BS: Tensor, prefix_BKT: Tensor) -> Tensor:
    """Hidden (B, K, D) of the last token of each hypothesis, from all its tokens at once."""
    sentences, hypotheses, tokens = prefix_BKT.shape
    repeated = source_BS.repeat_interleave(hypotheses, dim=0)
    memory = model.encode(repeated, repeated != 0)
    hidden = model.decode(prefix_BKT.reshape(-1, tokens), memory)
    return hidden[:, -1].view(sentences, hypotheses, -1)


@torch.no_grad()
def test_step_by_step(model: Any) -> None:
    """Hypotheses are reordered, dropped and doubled between steps, and sentences leave in the middle."""
    generator = torch.Generator().manual_seed(12)
    source_BS = random_source([9, 1, 4, 6, 2], generator)
    memory = model.encode(source_BS, source_BS != 0)
    state = model.start(memory)
    prefix_BKT = torch.full((5, 1, 1), 2)
    widths = {0: 4, 3: 6, 9: 2, 12: 5}
    leaving = {5: [4, 0, 2], 11: [1, 0], 16: [1]}
    for position in range(22):
        hidden_BKD, state = model.step(prefix_BKT[:, :, -1], memory, state)
        torch.testing.assert_close(hidden_BKD, expected_last(model, source_BS, prefix_BKT), **CLOSE)
        hypotheses = widths.get(position, prefix_BKT.size(1))
        shape = (prefix_BKT.size(0), hypotheses)
        beam_BK = torch.randint(0, prefix_BKT.size(1), shape, generator=generator)
        state = state.select(beam_BK)
        prefix_BKT = prefix_BKT.gather(1, beam_BK[:, :, None].expand(-1, -1, prefix_BKT.size(2)))
        token_BK = torch.randint(3, TARGET_VOCABULARY, shape, generator=generator)
        prefix_BKT = torch.cat((prefix_BKT, token_BK[:, :, None]), dim=-1)
        if position in leaving:
            rows_B = torch.tensor(leaving[position])
            state, memory = state.keep(rows_B), memory.keep(rows_B)
            source_BS, prefix_BKT = source_BS[rows_B], prefix_BKT[rows_B]
    assert prefix_BKT.shape == (1, 5, 23)


@torch.no_grad()
def test_many_hypotheses(model: Any) -> None:
    """So many that attention over the cache takes the fused kernel and the cache grows twice."""
    generator = torch.Generator().manual_seed(13)
    source_BS = random_source([5, 3], generator)
    memory = model.encode(source_BS, source_BS != 0)
    _, state = model.step(torch.full((2, 1), 2), memory, model.start(memory))
    prefix_BKT = torch.full((2, 48, 1), 2)
    state = state.select(torch.zeros(2, 48, dtype=torch.long))
    for _ in range(5):
        token_BK = torch.randint(3, TARGET_VOCABULARY, (2, 48), generator=generator)
        prefix_BKT = torch.cat((prefix_BKT, token_BK[:, :, None]), dim=-1)
        hidden_BKD, state = model.step(token_BK, memory, state)
        torch.testing.assert_close(hidden_BKD, expected_last(model, source_BS, prefix_BKT), **CLOSE)
        beam_BK = torch.randint(0, 48, (2, 48), generator=generator)
        state = state.select(beam_BK)
        prefix_BKT = prefix_BKT.gather(1, beam_BK[:, :, None].expand_as(prefix_BKT))


@torch.no_grad()
@pytest.mark.parametrize("tokens", [5, 90], ids=["short", "fused"])
def test_padding_changes_nothing(model: Any, tokens: int) -> None:
    generator = torch.Generator().manual_seed(14)
    lengths = [3, 90, 1, 7] if tokens == 90 else [3, 9, 1, 7]
    source_BS = random_source(lengths, generator, longest=max(lengths) + 3)
    target_BT = prefixes(4, tokens, generator)
    target_BT[0, 3:] = 0
    memory = model.encode(source_BS, source_BS != 0)
    logits_BTV = model.project(model.decode(target_BT, memory))
    for b, length in enumerate(lengths):
        alone = model.encode(source_BS[b : b + 1, :length], torch.ones(1, length, dtype=torch.bool))
        real = 3 if b == 0 else tokens
        alone_TV = model.project(model.decode(target_BT[b : b + 1, :real], alone))[0]
        torch.testing.assert_close(logits_BTV[b, :real], alone_TV, **CLOSE)


@torch.no_grad()
def test_what_stands_in_padding_does_not_matter(model: Any) -> None:
    generator = torch.Generator().manual_seed(15)
    source_BS = random_source([3, 8, 1], generator)
    mask_BS = source_BS != 0
    target_BT = prefixes(3, 6, generator)
    other_BS = torch.where(mask_BS, source_BS, 7)
    hidden = model.decode(target_BT, model.encode(source_BS, mask_BS))
    assert torch.equal(hidden, model.decode(target_BT, model.encode(other_BS, mask_BS)))
    unmasked = model.decode(target_BT, model.encode(other_BS, torch.ones_like(mask_BS)))
    assert not torch.allclose(hidden, unmasked)  # or the test above would say nothing


@torch.no_grad()
@pytest.mark.parametrize("tokens", [6, 90], ids=["short", "fused"])
def test_later_tokens_change_nothing_before(model: Any, tokens: int) -> None:
    generator = torch.Generator().manual_seed(16)
    source_BS = random_source([4, 2], generator)
    memory = model.encode(source_BS, source_BS != 0)
    target_BT = prefixes(2, tokens, generator)
    hidden_BTD = model.decode(target_BT, memory)
    for position in (1, tokens // 2, tokens - 1):
        other_BT = target_BT.clone()
        other_BT[:, position:] = 3 + (other_BT[:, position:] - 2) % (TARGET_VOCABULARY - 3)
        other_BTD = model.decode(other_BT, memory)
        torch.testing.assert_close(other_BTD[:, :position], hidden_BTD[:, :position], rtol=0, atol=1e-6)
        assert (other_BTD[:, position] - hidden_BTD[:, position]).abs().amax() > 1e-3


@torch.no_grad()
@pytest.mark.parametrize("tokens", [6, 90], ids=["short", "fused"])
def test_recorded_weights(model: Any, tokens: int) -> None:
    generator = torch.Generator().manual_seed(17)
    lengths = [3, tokens, 1]
    source_BS = random_source(lengths, generator, longest=tokens + 1)
    mask_BS = source_BS != 0
    target_BT = prefixes(3, tokens, generator)
    of_encoder: list[Tensor] = []
    of_decoder: list[Tensor] = []
    recorded_BTD = model.decode(target_BT, model.encode(source_BS, mask_BS, of_encoder), of_decoder)
    hidden_BTD = model.decode(target_BT, model.encode(source_BS, mask_BS))
    torch.testing.assert_close(recorded_BTD, hidden_BTD, **CLOSE)

    is_transformer = isinstance(model, Transformer)
    assert len(of_encoder) == (2 if is_transformer else 0)
    assert len(of_decoder) == (4 if is_transformer else 0 if isinstance(model, Recurrent) else 1)
    over_source = of_encoder + of_decoder[::2]
    for weights_BHQS in over_source:
        padding = ~mask_BS[:, None, None].expand_as(weights_BHQS)
        assert torch.equal(weights_BHQS[padding], torch.zeros_like(weights_BHQS[padding]))
    for weights_BHTT in of_decoder[1::2]:
        later = torch.ones(tokens, tokens, dtype=torch.bool).triu(1).expand_as(weights_BHTT)
        assert torch.equal(weights_BHTT[later], torch.zeros_like(weights_BHTT[later]))
    heads = 2 if is_transformer else 1
    has_gaussian = isinstance(model, Luong) and model.attention.window == "local-p"
    for weights in of_encoder + of_decoder:
        assert weights.shape[:2] == (3, heads)
        assert (weights >= 0).all()
        sums = weights.sum(dim=-1)
        if has_gaussian:
            assert (sums > 0).all()
            assert (sums <= 1 + 1e-6).all()
        else:
            torch.testing.assert_close(sums, torch.ones(weights.shape[:-1]), **CLOSE)


@torch.no_grad()
def test_training_mode_drops(model: Any) -> None:
    """Evaluation is deterministic; training is not, but follows torch's seed."""
    generator = torch.Generator().manual_seed(18)
    source_BS = random_source([4, 2], generator)
    target_BT = prefixes(2, 5, generator)

    def run() -> Tensor:
        return model.decode(target_BT, model.encode(source_BS, source_BS != 0))

    evaluated = run()
    assert torch.equal(evaluated, run())
    model.train()
    try:
        torch.manual_seed(1)
        first = run()
        second = run()
        torch.manual_seed(1)
        again = run()
    finally:
        model.eval()
    assert torch.equal(first, again)
    assert not torch.allclose(first, second)
    assert not torch.allclose(first, evaluated)


@torch.no_grad()
def test_bfloat16(model: Any) -> None:
    """As `training.precision = "bfloat16"` runs it: about the same, all at once and step by step."""
    generator = torch.Generator().manual_seed(20)
    source_BS = random_source([7, 2, 5], generator)
    target_BT = prefixes(3, 6, generator)
    expected_BTD = model.decode(target_BT, model.encode(source_BS, source_BS != 0))
    with torch.autocast("cpu", torch.bfloat16):
        memory = model.encode(source_BS, source_BS != 0)
        decoded_BTD = model.decode(target_BT, memory)
        state, stepped = model.start(memory), []
        for token_B1 in target_BT.split(1, dim=1):
            hidden_B1D, state = model.step(token_B1, memory, state)
            stepped.append(hidden_B1D)
    scale = expected_BTD.abs().amax()
    for found_BTD in (decoded_BTD, torch.cat(stepped, dim=1)):
        assert (found_BTD - expected_BTD).abs().amax() < 0.1 * scale
        assert not torch.allclose(found_BTD.float(), expected_BTD, **CLOSE)  # it did compute in bfloat16
