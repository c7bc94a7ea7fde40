"""Recurrent units, stacks and encoders against the papers in NumPy, and against torch's LSTM and GRU.

B sentences, K hypotheses, S source length, T target length, E input width, D hidden width.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from papers import (
    CLOSE,
    PARTS,
    gated_unit,
    padding_mask,
    part_of,
    randomize,
    stack_encoder,
    stack_step,
    weights_of,
)
from torch import Tensor, nn

from nmt.models.cells import (
    BidirectionalGatedEncoder,
    GatedUnit,
    RecurrentStack,
    StackedEncoder,
    initialize_scaled,
    orthogonal_blocks,
    reversal,
    take,
)
from nmt.models.unrolled import UnrolledLayer

SEEDS = range(50)
KINDS: dict[str, Any] = {"lstm": nn.LSTM, "gru": nn.GRU}


def random_state(random: np.random.Generator, cell: str, layers: int, *shape: int) -> Any:
    """A tensor for each part of each layer's state."""
    return tuple(
        tuple(torch.from_numpy(random.standard_normal(shape)) for _ in range(PARTS[cell]))
        for _ in range(layers)
    )


# --- the gated unit --------------------------------------------------------------------------------------


@torch.no_grad()
@pytest.mark.parametrize("with_context", [False, True], ids=["encoder", "decoder"])
@pytest.mark.parametrize("seed", SEEDS)
def test_gated_unit(seed: int, with_context: bool) -> None:
    random = np.random.default_rng([seed, 3])
    sentences, hypotheses, input_width, context_width, width = random.integers(1, 8, size=5).tolist()
    unit = GatedUnit(input_width, width, context_width if with_context else 0).double()
    randomize(unit, seed)
    embedded = random.standard_normal((sentences, hypotheses, input_width))
    context = random.standard_normal((sentences, hypotheses, context_width))
    hidden = random.standard_normal((sentences, hypotheses, width))
    found = unit(
        unit.project_input(torch.from_numpy(embedded)),
        torch.from_numpy(hidden),
        torch.from_numpy(context) if with_context else None,
    )
    weights = weights_of(unit)
    assert any("context" in name for name in weights) == with_context
    for b, k in np.ndindex(sentences, hypotheses):
        read = context[b, k] if with_context else None
        expected = gated_unit(weights, embedded[b, k], hidden[b, k], read)
        np.testing.assert_allclose(found[b, k], expected, **CLOSE)


def test_the_reset_gate_acts_before_the_product() -> None:
    """Where torch.nn.GRU has it after: with the same matrices the two differ, and agree if U is diagonal."""
    torch.manual_seed(41)
    unit, gru = GatedUnit(3, 4).double(), nn.GRUCell(3, 4).double()
    randomize(unit, 41, scale=1.0)

    def results() -> tuple[Tensor, Tensor]:
        hidden = torch.linspace(-1, 1, 8, dtype=torch.float64).view(2, 4)
        x = torch.linspace(1, -2, 6, dtype=torch.float64).view(2, 3)
        with torch.no_grad():
            gru.weight_ih.copy_(unit.input.weight)
            gru.bias_ih.copy_(unit.input.bias)
            gru.bias_hh.zero_()
            gru.weight_hh.copy_(torch.cat((unit.gates.weight, unit.candidate.weight)))
            # torch's update gate is the share of the old state.
            for parameter in (gru.weight_ih, gru.bias_ih, gru.weight_hh):
                parameter[4:8].neg_()
            return unit(unit.project_input(x), hidden), gru(x, hidden)

    ours, theirs = results()
    assert (ours - theirs).abs().amax() > 1e-2
    with torch.no_grad():
        unit.candidate.weight.copy_(torch.diag(torch.linspace(-2, 2, 4)))
    ours, theirs = results()
    torch.testing.assert_close(ours, theirs, **CLOSE)


@torch.no_grad()
@pytest.mark.parametrize("seed", SEEDS)
def test_gated_encoder(seed: int) -> None:
    random = np.random.default_rng([seed, 4])
    sentences, longest, input_width, width = random.integers(1, 8, size=4).tolist()
    lengths = random.integers(1, longest + 1, size=sentences).tolist()
    longest += seed % 3  # padding even of the longest sentence
    encoder = BidirectionalGatedEncoder(input_width, width).double()
    randomize(encoder, seed)
    embedded_BSE = random.standard_normal((sentences, longest, input_width))
    annotation_BSD, last_BD = encoder(torch.from_numpy(embedded_BSE), padding_mask(lengths, longest))
    assert annotation_BSD.shape == (sentences, longest, 2 * width)
    weights = weights_of(encoder)
    for b, length in enumerate(lengths):
        forward = backward = np.zeros(width)
        for s in range(length):
            forward = gated_unit(part_of(weights, "forward_unit"), embedded_BSE[b, s], forward)
            np.testing.assert_allclose(annotation_BSD[b, s, :width], forward, **CLOSE)
        for s in reversed(range(length)):
            backward = gated_unit(part_of(weights, "backward_unit"), embedded_BSE[b, s], backward)
            np.testing.assert_allclose(annotation_BSD[b, s, width:], backward, **CLOSE)
        np.testing.assert_allclose(last_BD[b], backward, **CLOSE)
        assert not annotation_BSD[b, length:].any()


# --- the order of the source -----------------------------------------------------------------------------


def test_reversal() -> None:
    mask_BS = padding_mask([4, 1, 2, 5], 5)
    assert reversal(mask_BS).tolist() == [
        [3, 2, 1, 0, 4],
        [0, 1, 2, 3, 4],
        [1, 0, 2, 3, 4],
        [4, 3, 2, 1, 0],
    ]
    assert reversal(mask_BS, keep_last=True).tolist() == [
        [2, 1, 0, 3, 4],
        [0, 1, 2, 3, 4],
        [0, 1, 2, 3, 4],
        [3, 2, 1, 0, 4],
    ]


@pytest.mark.parametrize("keep_last", [False, True])
def test_reversal_is_its_own_inverse(keep_last: bool) -> None:
    mask_BS = padding_mask(list(range(1, 9)), 10)
    x_BSD = torch.randn(8, 10, 3)
    order_BS = reversal(mask_BS, keep_last)
    assert not torch.equal(take(x_BSD, order_BS), x_BSD)
    assert torch.equal(take(take(x_BSD, order_BS), order_BS), x_BSD)


# --- stacks ----------------------------------------------------------------------------------------------


@torch.no_grad()
@pytest.mark.parametrize("cell", KINDS)
@pytest.mark.parametrize("seed", SEEDS)
def test_stack(seed: int, cell: str) -> None:
    """Token by token for K hypotheses a sentence, and all tokens in one call."""
    random = np.random.default_rng([seed, 5])
    sentences, hypotheses, tokens, input_width, width = random.integers(1, 7, size=5).tolist()
    layers = int(random.integers(1, 5))
    residual = seed % 2 == 1
    stack = RecurrentStack(input_width, width, layers, cell=cell, residual=residual, dropout=0.5).double()
    stack.eval()
    randomize(stack, seed, scale=0.7)
    x_BKTE = random.standard_normal((sentences, hypotheses, tokens, input_width))
    first = random_state(random, cell, layers, sentences, hypotheses, width)
    state, stepped = first, []
    for t in range(tokens):
        output_BKD, state = stack.step(torch.from_numpy(x_BKTE[:, :, t]), state)
        stepped.append(output_BKD)
    for k in range(hypotheses):
        of_hypothesis = tuple(tuple(part[:, k] for part in layer) for layer in first)
        output_BTD = stack(torch.from_numpy(x_BKTE[:, k]), of_hypothesis)
        torch.testing.assert_close(output_BTD, torch.stack(stepped, dim=2)[:, k], **CLOSE)
    for b, k in np.ndindex(sentences, hypotheses):
        expected = [tuple(part[b, k].numpy() for part in layer) for layer in first]
        for t in range(tokens):
            output, expected = stack_step(weights_of(stack), cell, residual, x_BKTE[b, k, t], expected)
            np.testing.assert_allclose(stepped[t][b, k], output, **CLOSE)
        for layer, expected_layer in zip(state, expected, strict=True):
            for part, expected_part in zip(layer, expected_layer, strict=True):
                np.testing.assert_allclose(part[b, k], expected_part, **CLOSE)


def copy_layers(theirs: nn.Module, layers: nn.ModuleList) -> None:
    """The weights of our layers into one torch module of as many."""
    with torch.no_grad():
        for index, layer in enumerate(layers):
            for name, parameter in layer.named_parameters():
                getattr(theirs, name.replace("_l0", f"_l{index}")).copy_(parameter)


def states_of_torch(last: Any) -> list[Tensor]:
    """h_n and c_n, or h_n."""
    return [last] if isinstance(last, Tensor) else list(last)


@torch.no_grad()
@pytest.mark.parametrize("cell", KINDS)
@pytest.mark.parametrize("layers", [1, 2, 4])
@pytest.mark.parametrize(
    ("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.float64, 1e-12)], ids=["float32", "float64"]
)
def test_stack_against_torch(cell: str, layers: int, dtype: torch.dtype, tolerance: float) -> None:
    random = np.random.default_rng([layers, 6])
    stack = RecurrentStack(12, 16, layers, cell=cell).to(dtype)
    theirs = KINDS[cell](12, 16, num_layers=layers, batch_first=True).to(dtype)
    randomize(stack, 43)
    copy_layers(theirs, stack.layers)
    x_BTE = torch.from_numpy(random.standard_normal((3, 9, 12))).to(dtype)
    first = tuple(
        tuple(part.to(dtype) for part in layer) for layer in random_state(random, cell, layers, 3, 16)
    )
    stacked = [torch.stack(parts) for parts in zip(*first, strict=True)]
    expected_BTD, last = theirs(x_BTE, tuple(stacked) if cell == "lstm" else stacked[0])
    close: dict[str, Any] = dict(rtol=tolerance, atol=tolerance)
    torch.testing.assert_close(stack(x_BTE, first), expected_BTD, **close)
    state = first
    for t in range(9):
        output_BD, state = stack.step(x_BTE[:, t], state)
        torch.testing.assert_close(output_BD, expected_BTD[:, t], **close)
    for parts, expected in zip(zip(*state, strict=True), states_of_torch(last), strict=True):
        torch.testing.assert_close(torch.stack(parts), expected, **close)


# --- encoders --------------------------------------------------------------------------------------------


@torch.no_grad()
@pytest.mark.parametrize("cell", KINDS)
@pytest.mark.parametrize("seed", SEEDS)
def test_stacked_encoder(seed: int, cell: str) -> None:
    random = np.random.default_rng([seed, 7])
    sentences, longest, input_width, half = random.integers(1, 7, size=4).tolist()
    layers = int(random.integers(1, 4))
    bidirectional, reverse, residual = bool(seed & 1), bool(seed & 2), bool(seed & 4)
    lengths = random.integers(1, longest + 1, size=sentences).tolist()
    longest += seed % 3
    encoder = StackedEncoder(
        input_width,
        2 * half,
        layers,
        cell=cell,
        bidirectional=bidirectional,
        reverse=reverse,
        residual=residual,
        dropout=0.5,
    )
    encoder.double().eval()
    randomize(encoder, seed, scale=0.7)
    embedded_BSE = random.standard_normal((sentences, longest, input_width))
    states_BSD, last = encoder(torch.from_numpy(embedded_BSE), padding_mask(lengths, longest))
    assert states_BSD.shape == (sentences, longest, 2 * half)
    for b, length in enumerate(lengths):
        states, expected_last = stack_encoder(
            weights_of(encoder), cell, residual, reverse, list(embedded_BSE[b, :length])
        )
        np.testing.assert_allclose(states_BSD[b, :length], np.array(states), **CLOSE)
        assert not states_BSD[b, length:].any()
        for layer, expected_layer in zip(last, expected_last, strict=True):
            for part, expected in zip(layer, expected_layer, strict=True):
                np.testing.assert_allclose(part[b], expected, **CLOSE)


@torch.no_grad()
@pytest.mark.parametrize("cell", KINDS)
@pytest.mark.parametrize("bidirectional", [False, True], ids=["one-way", "both-ways"])
@pytest.mark.parametrize(
    ("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.float64, 1e-12)], ids=["float32", "float64"]
)
def test_stacked_encoder_against_torch(
    cell: str, bidirectional: bool, dtype: torch.dtype, tolerance: float
) -> None:
    """torch's own layers over each sentence alone, without padding."""
    generator = torch.Generator().manual_seed(44)
    encoder = StackedEncoder(12, 16, 3, cell=cell, bidirectional=bidirectional).to(dtype)
    width = 8 if bidirectional else 16
    theirs = KINDS[cell](12, width, num_layers=3, batch_first=True, bidirectional=bidirectional).to(dtype)
    randomize(encoder, 44)
    copy_layers(theirs, encoder.layers)
    lengths = [4, 9, 1, 9, 6]
    embedded_BSE = torch.randn(5, 11, 12, generator=generator).to(dtype)
    states_BSD, last = encoder(embedded_BSE, padding_mask(lengths, 11))
    close: dict[str, Any] = dict(rtol=tolerance, atol=tolerance)
    for b, length in enumerate(lengths):
        expected_1SD, expected_last = theirs(embedded_BSE[b : b + 1, :length])
        torch.testing.assert_close(states_BSD[b, :length], expected_1SD[0], **close)
        for parts, expected in zip(zip(*last, strict=True), states_of_torch(expected_last), strict=True):
            # (layers x directions, 1, D), the directions of a layer side by side
            expected_LD = expected[:, 0].reshape(3, 16)
            torch.testing.assert_close(torch.stack([part[b] for part in parts]), expected_LD, **close)


def unrolled(layer: Any) -> UnrolledLayer:
    """With plain linear layers of its weights."""

    def linear(part: str, suffix: str) -> nn.Linear:
        weight = getattr(layer, f"weight_{part}_l0{suffix}")
        made = nn.Linear(weight.size(1), weight.size(0), device="meta")
        made.weight, made.bias = weight, getattr(layer, f"bias_{part}_l0{suffix}")
        return made

    suffixes = ["", "_reverse"][: 1 + layer.bidirectional]
    return UnrolledLayer(layer.mode.lower(), [(linear("ih", s), linear("hh", s)) for s in suffixes])


@torch.no_grad()
@pytest.mark.parametrize("cell", KINDS)
@pytest.mark.parametrize("bidirectional", [False, True], ids=["one-way", "both-ways"])
@pytest.mark.parametrize("with_first", [False, True], ids=["from-zero", "from-a-state"])
def test_unrolled_layers_against_torch(cell: str, bidirectional: bool, with_first: bool) -> None:
    """Sentences of all lengths in any order, as rectangles and packed."""
    for seed in range(20):
        random = np.random.default_rng([seed, 12])
        sentences, tokens, input_width, width = random.integers(1, 8, size=4).tolist()
        layer = KINDS[cell](input_width, width, batch_first=True, bidirectional=bidirectional).double()
        randomize(layer, seed)
        x_BTE = torch.from_numpy(random.standard_normal((sentences, tokens, input_width)))
        (state,) = random_state(random, cell, 1, 1 + bidirectional, sentences, width)
        first = None if not with_first else state if cell == "lstm" else state[0]
        lengths = torch.from_numpy(random.integers(1, tokens + 1, size=sentences))
        packed = nn.utils.rnn.pack_padded_sequence(x_BTE, lengths, batch_first=True, enforce_sorted=False)
        for x in (x_BTE, packed):
            output, last = unrolled(layer)(x, first)
            expected, expected_last = layer(x, first)
            torch.testing.assert_close(tuple(output), tuple(expected), **CLOSE)
            torch.testing.assert_close(last, expected_last, **CLOSE)


@torch.no_grad()
@pytest.mark.parametrize("where", ["step", "stack", "encoder"])
def test_dropout_is_between_layers(where: str) -> None:
    """One layer has none; of three, what the second and the third read is dropped and the first is whole."""

    def of_layers(layers: int, rate: float) -> list[Tensor]:
        """Each layer's last hidden state; of a whole stack, its highest layer's states."""
        torch.manual_seed(45)
        x_BTE = torch.randn(3, 6, 4)
        if where == "encoder":
            encoder = StackedEncoder(4, 8, layers, cell="lstm", dropout=rate)
            randomize(encoder, 45)
            return [layer[0] for layer in encoder(x_BTE, padding_mask([6, 2, 4], 6))[1]]
        stack = RecurrentStack(4, 8, layers, cell="lstm", dropout=rate)
        randomize(stack, 45)
        first = tuple((torch.zeros(3, 8),) * 2 for _ in range(layers))
        if where == "stack":
            return [stack(x_BTE, first)]
        return [layer[0] for layer in stack.step(x_BTE[:, 0], first)[1]]

    assert torch.equal(of_layers(1, 0.5)[0], of_layers(1, 0.0)[0])
    dropped, whole = of_layers(3, 0.5), of_layers(3, 0.0)
    if where != "stack":
        assert torch.equal(dropped.pop(0), whole.pop(0))
    for dropped_states, states in zip(dropped, whole, strict=True):
        assert not torch.allclose(dropped_states, states, atol=1e-3)


# --- first weights ---------------------------------------------------------------------------------------


def is_orthogonal(block: Tensor) -> bool:
    return torch.allclose(block @ block.t(), torch.eye(block.size(0)), atol=1e-5)


def test_orthogonal_blocks() -> None:
    torch.manual_seed(46)
    weight = nn.Parameter(torch.zeros(15, 5))
    orthogonal_blocks(weight)
    blocks = weight.detach().split(5)
    assert all(is_orthogonal(block) for block in blocks)
    assert not torch.allclose(blocks[0], blocks[1])


def test_scaled_first_weights() -> None:
    torch.manual_seed(47)
    model = nn.ModuleDict(
        {
            "embeddings": nn.Embedding(400, 64),
            "stack": RecurrentStack(64, 32, 2, cell="lstm"),
            "encoder": StackedEncoder(64, 32, 2, cell="gru", bidirectional=True),
            "unit": GatedUnit(64, 32, 48),
            "combine": nn.Linear(64, 32),
        }
    )
    initialize_scaled(model)
    embedding = model["embeddings"].weight
    assert embedding.std().item() == pytest.approx(1 / 8, rel=0.02)
    assert embedding.abs().amax() > 3 / 8  # normal, not uniform
    orthogonal = 0
    for name, parameter in model.named_parameters():
        if "weight_hh" in name or name in ("unit.gates.weight", "unit.candidate.weight"):
            blocks = parameter.detach().split(parameter.size(1))
            assert all(is_orthogonal(block) for block in blocks), name
            orthogonal += len(blocks)
        elif parameter.dim() > 1 and name != "embeddings.weight":
            limit = (6 / sum(parameter.shape)) ** 0.5
            assert 0.95 * limit < parameter.abs().amax() <= limit, name
        elif parameter.dim() == 1 and not name.startswith("stack"):
            assert not parameter.any(), name
    assert orthogonal == 2 * 4 + 2 * 2 * 3 + 2 + 1
    for layer in model["stack"].layers:
        bias = layer.bias_ih_l0 + layer.bias_hh_l0
        assert bias.tolist() == [0.0] * 32 + [1.0] * 32 + [0.0] * 64  # the forget gate is the second
