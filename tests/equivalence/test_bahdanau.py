"""Bahdanau's model against a plain NumPy reading of appendix A of the paper, in float64; gradients."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from torch import Tensor, nn

from nmt.loss import cross_entropy_sum
from nmt.models.attention import AdditiveAttention
from nmt.models.recurrent import Bahdanau, BidirectionalEncoder, ConditionalGRUCell
from nmt.models.transformer import Transformer

Array = npt.NDArray[np.float64]
CLOSE = dict(rtol=1e-10, atol=1e-10)


@pytest.fixture(autouse=True, scope="module")
def _one_thread() -> Any:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def randomize(module: nn.Module, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            values = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
            parameter.copy_(values * 0.4)


def arrays(module: nn.Module) -> dict[str, Array]:
    return {name: tensor.detach().numpy() for name, tensor in module.state_dict().items()}


def sigmoid(x: Array) -> Array:
    return 1 / (1 + np.exp(-x))


# --- the appendix, one vector at a time ------------------------------------------------------------------


def align(weights: dict[str, Array], state: Array, annotations: list[Array]) -> Array:
    """A.1.2: e_j = v' tanh(W s + U h_j), alpha = softmax(e)."""
    energies = np.array(
        [
            weights["energy.weight"][0]
            @ np.tanh(weights["query.weight"] @ state + weights["key.weight"] @ annotation)
            for annotation in annotations
        ]
    )
    return np.exp(energies) / np.exp(energies).sum()


def gated_unit(weights: dict[str, Array], embedded: Array, state: Array, context: Array) -> Array:
    """A.2.2: the decoder's gated unit. Rows of the stacked matrices: reset, update, candidate."""
    width = len(state)
    reset_rows, update_rows, candidate_rows = (slice(i * width, (i + 1) * width) for i in range(3))

    def of_input(rows: slice) -> Array:
        return (
            weights["input.weight"][rows] @ embedded
            + weights["input.bias"][rows]
            + weights["context.weight"][rows] @ context
        )

    reset = sigmoid(of_input(reset_rows) + weights["gates.weight"][:width] @ state)
    update = sigmoid(of_input(update_rows) + weights["gates.weight"][width:] @ state)
    candidate = np.tanh(of_input(candidate_rows) + weights["candidate.weight"] @ (reset * state))
    return (1 - update) * state + update * candidate


def torch_gru(weights: dict[str, Array], inputs: list[Array], suffix: str) -> list[Array]:
    """The equations in the documentation of torch.nn.GRU."""
    input_weight, hidden_weight = weights[f"weight_ih_l0{suffix}"], weights[f"weight_hh_l0{suffix}"]
    input_bias, hidden_bias = weights[f"bias_ih_l0{suffix}"], weights[f"bias_hh_l0{suffix}"]
    width = hidden_weight.shape[1]
    hidden, states = np.zeros(width), []
    for x in inputs:
        from_input = np.split(input_weight @ x + input_bias, 3)
        from_hidden = np.split(hidden_weight @ hidden + hidden_bias, 3)
        reset, update = (sigmoid(from_input[i] + from_hidden[i]) for i in (0, 1))
        candidate = np.tanh(from_input[2] + reset * from_hidden[2])
        hidden = (1 - update) * candidate + update * hidden
        states.append(hidden)
    return states


def decode(model: Bahdanau, source: list[int], target: list[int]) -> tuple[Array, Array, Array]:
    """Deep output, logits and attention weights of one sentence."""
    weights = arrays(model)

    def part(name: str) -> dict[str, Array]:
        return {key.removeprefix(name): value for key, value in weights.items() if key.startswith(name)}

    embedded = [weights["embeddings.source.weight"][i] for i in source]
    recurrence = part("encoder.recurrence.")
    forward = torch_gru(recurrence, embedded, "")
    backward = torch_gru(recurrence, embedded[::-1], "_reverse")[::-1]
    annotations = [np.concatenate(pair) for pair in zip(forward, backward, strict=True)]
    state = np.tanh(weights["first_state.weight"] @ backward[0] + weights["first_state.bias"])
    outputs, alignments = [], []
    for token in target:
        word = weights["embeddings.target.weight"][token]
        alpha = align(part("attention."), state, annotations)
        context = sum((a * h for a, h in zip(alpha, annotations, strict=True)), np.zeros_like(annotations[0]))
        state = gated_unit(part("cell."), word, state, context)
        pairs = (
            weights["maxout_hidden.weight"] @ state
            + weights["maxout_hidden.bias"]
            + weights["maxout_input.weight"] @ word
            + weights["maxout_context.weight"] @ context
        )
        outputs.append([max(pairs[2 * j], pairs[2 * j + 1]) for j in range(len(pairs) // 2)])
        alignments.append(alpha)
    output = np.array(outputs)
    logits = output @ weights["embeddings.output.weight"].T + weights["embeddings.output.bias"]
    return output, logits, np.array(alignments)


# --- the tests ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(10))
def test_additive_attention(seed: int) -> None:
    random = np.random.default_rng([seed, 1])
    sentences, queries, longest, query_width, key_width, width = random.integers(1, 7, size=6).tolist()
    longest += 2
    lengths = [longest, *random.integers(1, longest + 1, size=sentences).tolist()]
    attention = AdditiveAttention(query_width, key_width, width).double()
    randomize(attention, seed)
    query_BQD = random.standard_normal((len(lengths), queries, query_width))
    value_BSD = random.standard_normal((len(lengths), longest, key_width))
    mask_BS = torch.arange(longest) < torch.tensor(lengths)[:, None]
    with torch.no_grad():
        keys_BSA = attention.project_keys(torch.from_numpy(value_BSD))
        context_BQD, weights_BQS = attention(
            torch.from_numpy(query_BQD), keys_BSA, torch.from_numpy(value_BSD), mask_BS
        )
    weights = arrays(attention)
    for b, length in enumerate(lengths):
        for q in range(queries):
            alpha = align(weights, query_BQD[b, q], list(value_BSD[b, :length]))
            np.testing.assert_allclose(weights_BQS[b, q, :length], alpha, **CLOSE)
            np.testing.assert_allclose(context_BQD[b, q], alpha @ value_BSD[b, :length], **CLOSE)
        assert torch.equal(weights_BQS[b, :, length:], torch.zeros_like(weights_BQS[b, :, length:]))


@pytest.mark.parametrize("seed", range(10))
def test_conditional_gru_cell(seed: int) -> None:
    random = np.random.default_rng([seed, 2])
    sentences, hypotheses, input_width, context_width, width = random.integers(1, 8, size=5).tolist()
    cell = ConditionalGRUCell(input_width, context_width, width).double()
    randomize(cell, seed)
    embedded = random.standard_normal((sentences, hypotheses, input_width))
    context = random.standard_normal((sentences, hypotheses, context_width))
    hidden = random.standard_normal((sentences, hypotheses, width))
    with torch.no_grad():
        found = cell(
            cell.project_input(torch.from_numpy(embedded)),
            torch.from_numpy(context),
            torch.from_numpy(hidden),
        )
    weights = arrays(cell)
    for b in range(sentences):
        for k in range(hypotheses):
            expected = gated_unit(weights, embedded[b, k], hidden[b, k], context[b, k])
            np.testing.assert_allclose(found[b, k], expected, **CLOSE)


@torch.no_grad()
@pytest.mark.parametrize("lengths", [[5, 1, 3, 5], [1], [2, 7]])
def test_encoder_against_each_sentence_alone(lengths: list[int]) -> None:
    """torch.nn.GRU over one sentence without padding, forward and over the reversed sentence."""
    torch.manual_seed(31)
    encoder = BidirectionalEncoder(6, 4).double()
    randomize(encoder, 31)
    both = encoder.recurrence
    one_way = []
    for suffix in ("", "_reverse"):
        gru = nn.GRU(6, 4, batch_first=True).double()
        for name in ("weight_ih_l0", "weight_hh_l0", "bias_ih_l0", "bias_hh_l0"):
            getattr(gru, name).copy_(getattr(both, name + suffix))
        one_way.append(gru)
    longest = max(lengths) + 2  # padding even of the longest sentence
    mask_BS = torch.arange(longest) < torch.tensor(lengths)[:, None]
    embedded_BSE = torch.randn(len(lengths), longest, 6, dtype=torch.float64)
    annotation_BSD, last_BD = encoder(embedded_BSE, mask_BS)
    assert annotation_BSD.shape == (len(lengths), longest, 8)
    for b, length in enumerate(lengths):
        alone_1SE = embedded_BSE[b : b + 1, :length]
        forward_1SD, _ = one_way[0](alone_1SE)
        backward_1SD, backward_last = one_way[1](alone_1SE.flip(1))
        expected_SD = torch.cat((forward_1SD, backward_1SD.flip(1)), dim=-1)[0]
        torch.testing.assert_close(annotation_BSD[b, :length], expected_SD, **CLOSE)
        torch.testing.assert_close(last_BD[b], backward_last[0, 0], **CLOSE)
        assert not annotation_BSD[b, length:].any()


@pytest.mark.parametrize("tie", ["none", "target", "all"])
def test_whole_model(tie: str) -> None:
    model = Bahdanau(
        source_vocabulary=11,
        target_vocabulary=11 if tie == "all" else 9,
        embedding_width=5,
        hidden_width=6,
        attention_width=4,
        maxout_width=3 if tie == "none" else 5,
        dropout=0.4,
        tie_embeddings=tie,
    ).double()
    model.eval()
    randomize(model, 32)
    sources = [[4, 5, 6, 3], [7, 3], [3], [10, 4, 4, 9, 8, 8, 3]]
    targets = [[2, 4, 8], [2], [2, 3, 3, 7, 8, 8, 4], [2, 5, 6, 7]]
    source_BS = torch.tensor([source + [0] * (7 - len(source)) for source in sources])
    target_BT = torch.tensor([target + [0] * (7 - len(target)) for target in targets])
    record: list[Tensor] = []
    with torch.no_grad():
        output_BTL = model.decode(target_BT, model.encode(source_BS, source_BS != 0), record)
        logits_BTV = model.project(output_BTL)
    (weights_B1TS,) = record
    for b, (source, target) in enumerate(zip(sources, targets, strict=True)):
        output, logits, alignments = decode(model, source, target)
        np.testing.assert_allclose(output_BTL[b, : len(target)], output, **CLOSE)
        np.testing.assert_allclose(logits_BTV[b, : len(target)], logits, **CLOSE)
        np.testing.assert_allclose(weights_B1TS[b, 0, : len(target), : len(source)], alignments, **CLOSE)


def test_recurrent_matrices_begin_orthogonal() -> None:
    """A.2.3: every square recurrent matrix, one a gate."""
    torch.manual_seed(33)
    model = Bahdanau(
        source_vocabulary=11,
        target_vocabulary=11,
        embedding_width=5,
        hidden_width=6,
        attention_width=4,
        maxout_width=5,
        dropout=0.0,
    )
    recurrence = model.encoder.recurrence
    stacked = [
        recurrence.weight_hh_l0,
        recurrence.weight_hh_l0_reverse,
        model.cell.gates.weight,
        model.cell.candidate.weight,
    ]
    blocks = [block for matrix in stacked for block in matrix.detach().split(6)]
    assert len(blocks) == 3 + 3 + 2 + 1
    for block in blocks:
        torch.testing.assert_close(block @ block.t(), torch.eye(6), rtol=0, atol=1e-5)


# --- gradients ---------------------------------------------------------------------------------------------


def tiny_bahdanau(tie: str) -> nn.Module:
    return Bahdanau(
        source_vocabulary=7,
        target_vocabulary=7,
        embedding_width=4,
        hidden_width=4,
        attention_width=3,
        maxout_width=4,
        dropout=0.0,
        tie_embeddings=tie,
    )


def tiny_transformer(norm: str, positions: str, tie: str) -> nn.Module:
    return Transformer(
        source_vocabulary=7,
        target_vocabulary=7,
        encoder_layers=1,
        decoder_layers=1,
        width=4,
        feed_forward_width=6,
        heads=2,
        dropout=0.0,
        norm=norm,
        positions=positions,
        max_positions=8,
        tie_embeddings=tie,
    )


@pytest.mark.parametrize(
    "make",
    [
        lambda: tiny_bahdanau("none"),
        lambda: tiny_bahdanau("all"),
        lambda: tiny_transformer("post", "sinusoidal", "all"),
        lambda: tiny_transformer("pre", "learned", "none"),
    ],
    ids=["bahdanau", "bahdanau-tied", "transformer-post-tied", "transformer-pre"],
)
def test_gradients(make: Callable[[], nn.Module]) -> None:
    """By finite differences, through the model and our own loss, for every parameter."""
    model: Any = make().double()
    randomize(model, 34)
    source_BS = torch.tensor([[4, 5, 3], [6, 3, 0]])
    input_BT = torch.tensor([[2, 4, 6, 5], [2, 5, 0, 0]])
    output_BT = torch.tensor([[4, 6, 5, 3], [5, 3, 0, 0]])
    is_token_BT = output_BT != 0

    def loss(*_: Tensor) -> Tensor:
        hidden_BTD = model.decode(input_BT, model.encode(source_BS, source_BS != 0))
        layer = model.embeddings.output
        smoothed, _ = cross_entropy_sum(
            hidden_BTD[is_token_BT], layer.weight, layer.bias, output_BT[is_token_BT], smoothing=0.1, chunk=4
        )
        return smoothed

    parameters = tuple(model.parameters())
    assert torch.autograd.gradcheck(loss, parameters, fast_mode=True)
    loss().backward()
    for name, parameter in model.named_parameters():  # nothing is left out
        assert parameter.grad is not None, name
        assert parameter.grad.abs().sum() > 0, name
