"""Step by step equals all at once; padding and later tokens change nothing; dropout is dropout."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from nmt.models.dropout import dropout
from nmt.models.recurrent import Bahdanau
from nmt.models.transformer import Transformer

SOURCE_VOCABULARY, TARGET_VOCABULARY = 23, 19
CLOSE = dict(rtol=1e-5, atol=1e-5)


@pytest.fixture(autouse=True, scope="module")
def _one_thread() -> Any:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def transformer(norm: str, positions: str) -> nn.Module:
    return Transformer(
        source_vocabulary=SOURCE_VOCABULARY,
        target_vocabulary=TARGET_VOCABULARY,
        encoder_layers=2,
        decoder_layers=2,
        width=16,
        feed_forward_width=24,
        heads=2,
        dropout=0.5,
        attention_dropout=0.5,
        activation_dropout=0.5,
        norm=norm,
        positions=positions,
        max_positions=128,
        tie_embeddings="target",
    )


def bahdanau(tie: str) -> nn.Module:
    return Bahdanau(
        source_vocabulary=SOURCE_VOCABULARY,
        target_vocabulary=TARGET_VOCABULARY,
        embedding_width=8,
        hidden_width=10,
        attention_width=7,
        maxout_width=8 if tie == "target" else 5,
        dropout=0.5,
        tie_embeddings=tie,
    )


MODELS = {
    "post-sinusoidal": lambda: transformer("post", "sinusoidal"),
    "post-learned": lambda: transformer("post", "learned"),
    "pre-sinusoidal": lambda: transformer("pre", "sinusoidal"),
    "pre-learned": lambda: transformer("pre", "learned"),
    "bahdanau-tied": lambda: bahdanau("target"),
    "bahdanau-untied": lambda: bahdanau("none"),
}


@pytest.fixture(scope="module", params=MODELS)
def model(request: pytest.FixtureRequest) -> Any:
    """In evaluation mode; its dropout rates are high, so dropout in the wrong place shows."""
    torch.manual_seed(11)
    made = MODELS[request.param]()
    with torch.no_grad():
        for parameter in made.parameters():
            if parameter.dim() == 1:  # biases begin at 0 and norms at 1, which would hide mistakes
                parameter.add_(torch.randn_like(parameter) * 0.3)
    return made.eval()


def random_source(lengths: list[int], generator: torch.Generator, *, longest: int = 0) -> Tensor:
    """Ids 4 and up, end of sentence (3) last, padding (0) after it."""
    source_BS = torch.zeros(len(lengths), max(longest, *lengths), dtype=torch.long)
    for row, length in zip(source_BS, lengths, strict=True):
        row[:length] = torch.randint(4, SOURCE_VOCABULARY, (length,), generator=generator)
        row[length - 1] = 3
    return source_BS


def prefixes(sentences: int, tokens: int, generator: torch.Generator) -> Tensor:
    target_BT = torch.randint(3, TARGET_VOCABULARY, (sentences, tokens), generator=generator)
    target_BT[:, 0] = 2
    return target_BT


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
    assert len(of_decoder) == (4 if is_transformer else 1)
    over_source = of_encoder + of_decoder[::2]
    for weights_BHQS in over_source:
        padding = ~mask_BS[:, None, None].expand_as(weights_BHQS)
        assert torch.equal(weights_BHQS[padding], torch.zeros_like(weights_BHQS[padding]))
    for weights_BHTT in of_decoder[1::2]:
        later = torch.ones(tokens, tokens, dtype=torch.bool).triu(1).expand_as(weights_BHTT)
        assert torch.equal(weights_BHTT[later], torch.zeros_like(weights_BHTT[later]))
    heads = 2 if is_transformer else 1
    for weights in of_encoder + of_decoder:
        assert weights.shape[:2] == (3, heads)
        assert (weights >= 0).all()
        torch.testing.assert_close(weights.sum(dim=-1), torch.ones(weights.shape[:-1]), **CLOSE)


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


# --- dropout() -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("rate", [0.1, 0.3, 0.5, 0.9])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_dropout_rate_mean_and_variance(rate: float, dtype: torch.dtype) -> None:
    count = 200_003  # no multiple of the four elements of a draw
    torch.manual_seed(21)
    dropped = dropout(torch.ones(count, dtype=dtype), rate, True)
    assert dropped.dtype == dtype
    values = dropped.unique()
    scale = torch.tensor(1 / (1 - rate), dtype=dtype)
    torch.testing.assert_close(values, torch.stack((torch.zeros_like(scale), scale)))
    kept = (dropped != 0).double()
    deviation = (rate * (1 - rate) / count) ** 0.5
    assert abs(kept.mean().item() - (1 - rate)) < 4.5 * deviation
    assert kept.var().item() == pytest.approx(rate * (1 - rate), rel=0.02)


@pytest.mark.parametrize("rate", [0.2, 0.5])
def test_dropout_is_independent_between_neighbours(rate: float) -> None:
    """One draw serves four elements: no two of them may agree more often than by chance."""
    count = 400_000
    torch.manual_seed(22)
    kept = (dropout(torch.ones(count), rate, True) != 0).double() - (1 - rate)
    for lane in range(4):
        assert abs(kept[lane::4].mean().item()) < 4.5 * (rate * (1 - rate) / (count // 4)) ** 0.5
    for lag in range(1, 9):
        correlation = (kept[lag:] * kept[:-lag]).mean().item() / (rate * (1 - rate))
        assert abs(correlation) < 4.5 / (count - lag) ** 0.5


@pytest.mark.parametrize("shape", [(), (1,), (3,), (0,), (2, 0, 3), (5, 7), (2, 3, 4, 5)])
def test_dropout_shapes(shape: tuple[int, ...]) -> None:
    x = torch.full(shape, 3.0)
    torch.manual_seed(23)
    dropped = dropout(x, 0.5, True)
    assert dropped.shape == x.shape
    assert all(value in (0.0, 6.0) for value in dropped.flatten().tolist())


def test_dropout_of_a_transposed_tensor() -> None:
    x = torch.arange(1.0, 1001.0).view(20, 50).t()
    torch.manual_seed(24)
    dropped = dropout(x, 0.5, True)
    kept = dropped != 0
    assert 0.4 < kept.double().mean() < 0.6
    assert torch.equal(dropped[kept], 2 * x[kept])


def test_dropout_backward_mask_is_forward_mask() -> None:
    x = torch.randn(501, dtype=torch.float64, generator=torch.Generator().manual_seed(25))
    x.requires_grad_()
    weight = torch.randn_like(x.detach())
    dropped = dropout(x, 0.3, True)
    (dropped * weight).sum().backward()
    factor = (dropped / x).detach()
    assert x.grad is not None
    torch.testing.assert_close(x.grad, factor * weight)
    assert 0 < (x.grad == 0).sum() < 501


def test_dropout_without_effect() -> None:
    x = torch.randn(100)
    assert torch.equal(dropout(x, 0.0, True), x)
    assert torch.equal(dropout(x, 0.7, False), x)


def test_dropout_follows_the_seed() -> None:
    x = torch.ones(1000)
    torch.manual_seed(26)
    first = dropout(x, 0.5, True)
    second = dropout(x, 0.5, True)
    torch.manual_seed(26)
    assert torch.equal(dropout(x, 0.5, True), first)
    assert not torch.equal(first, second)


@pytest.mark.parametrize("rate", [0.9999, 0.99999, 0.999999])
def test_dropout_close_to_one(rate: float) -> None:
    """Any rate below 1 is allowed; one close to it keeps next to nothing."""
    torch.manual_seed(27)
    assert (dropout(torch.ones(10_000), rate, True) != 0).double().mean() < 0.001
