"""Whole recurrent models against the papers in NumPy, in float64, and against torch's LSTM and GRU.

B sentences, K hypotheses, S source length, T target length, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from papers import CLOSE, Decoded, LuongOptions, bahdanau, luong, randomize, recurrent, weights_of
from torch import Tensor, nn

from nmt.models.embeddings import Embeddings
from nmt.models.recurrent import Bahdanau, Luong, Recurrent

SEEDS = range(50)
TIES = ["none", "target", "all"]
SCORES = ["dot", "general", "concat", "location"]
WINDOWS = ["global", "local-m", "local-p"]
Reference = Callable[[list[int], list[int]], Decoded]


def padded(rows: list[list[int]], more: int) -> Tensor:
    longest = max(map(len, rows)) + more
    return torch.tensor([row + [0] * (longest - len(row)) for row in rows])


@torch.no_grad()
def compare(model: Any, seed: int, reference: Reference) -> None:
    """All tokens at once, and token by token for K hypotheses a sentence, with padding of both sides."""
    model.double().eval()
    randomize(model, seed, scale=0.5)
    random = np.random.default_rng([seed, 8])
    vocabulary = min(model.embeddings.source.num_embeddings, model.embeddings.target.num_embeddings)
    sentences, hypotheses = random.integers(1, 4, size=2).tolist()

    def sentence(end: bool) -> list[int]:
        ids = random.integers(4, vocabulary, size=random.integers(0, 7)).tolist()
        return [*ids, 3] if end else [2, *ids]

    sources = [sentence(end=True) for _ in range(sentences)]
    targets = [sentence(end=False) for _ in range(sentences)]
    source_BS, target_BT = padded(sources, seed % 3), padded(targets, seed % 2)
    record: list[Tensor] = []
    memory = model.encode(source_BS, source_BS != 0)
    output_BTL = model.decode(target_BT, memory, record)
    logits_BTV = model.project(output_BTL)
    for b, (source, target) in enumerate(zip(sources, targets, strict=True)):
        expected = reference(source, target)
        np.testing.assert_allclose(output_BTL[b, : len(target)], np.array(expected.output), **CLOSE)
        np.testing.assert_allclose(logits_BTV[b, : len(target)], np.array(expected.logits), **CLOSE)
        if expected.attention:
            (weights_B1TS,) = record
            found = weights_B1TS[b, 0, : len(target)]
            np.testing.assert_allclose(found[:, : len(source)], np.array(expected.attention), **CLOSE)
            assert not found[:, len(source) :].any()

    token_BKT = torch.from_numpy(random.integers(4, vocabulary, size=(sentences, hypotheses, 5)))
    token_BKT[:, :, 0] = 2
    state, logits = model.start(memory).select(torch.zeros(sentences, hypotheses, dtype=torch.long)), []
    for t in range(5):
        output_BKL, state = model.step(token_BKT[:, :, t], memory, state)
        logits.append(model.project(output_BKL))
    for b, k in np.ndindex(sentences, hypotheses):
        expected = reference(sources[b], token_BKT[b, k].tolist())
        for t in range(5):
            np.testing.assert_allclose(logits[t][b, k], expected.logits[t], **CLOSE)


def random_sizes(random: np.random.Generator, tie: str, output_width: str) -> dict[str, Any]:
    """Vocabularies and widths; tied, what is projected is as wide as an embedding."""
    source, target = random.integers(9, 15, size=2).tolist()
    embedding, output = random.integers(1, 7, size=2).tolist()
    return {
        "source_vocabulary": target if tie == "all" else source,
        "target_vocabulary": target,
        "embedding_width": embedding,
        output_width: output if tie == "none" else embedding,
        "tie_embeddings": tie,
        "dropout": 0.4,
        "embedding_dropout": 0.3,
    }


def random_stack(random: np.random.Generator, seed: int) -> dict[str, Any]:
    """Layers of every kind; two of three encoders differ from the plain one."""
    return {
        "layers": int(random.integers(1, 4)),
        "cell": ["lstm", "gru"][seed // 2 % 2],
        "bidirectional": bool(random.integers(2)),
        "reverse_source": bool(random.integers(2)),
        "residual": bool(random.integers(2)),
    }


@pytest.mark.parametrize("seed", SEEDS)
def test_bahdanau(seed: int) -> None:
    random = np.random.default_rng([seed, 9])
    hidden, attention = random.integers(1, 8, size=2).tolist()
    model = Bahdanau(
        **random_sizes(random, TIES[seed % 3], "maxout_width"),
        hidden_width=hidden,
        attention_width=attention,
        attention_dropout=0.2,
    )
    compare(model, seed, lambda source, target: bahdanau(weights_of(model), source, target))


@pytest.mark.parametrize("seed", SEEDS)
def test_recurrent(seed: int) -> None:
    random = np.random.default_rng([seed, 10])
    tie = TIES[seed % 3]
    sizes = random_sizes(random, tie, "hidden_width")
    stack = random_stack(random, seed)
    if stack["bidirectional"]:  # each direction has half of it
        sizes["hidden_width"] += sizes["hidden_width"] % 2
        sizes["embedding_width"] = sizes["hidden_width"] if tie != "none" else sizes["embedding_width"]
    model = Recurrent(**sizes, **stack)
    options = stack["cell"], stack["residual"], stack["reverse_source"]
    compare(model, seed, lambda source, target: recurrent(weights_of(model), *options, source, target))


@pytest.mark.parametrize("input_feeding", [False, True], ids=["unfed", "fed"])
@pytest.mark.parametrize("seed", SEEDS)
def test_luong(seed: int, input_feeding: bool) -> None:
    """Every score with every window, each in several of the seeds; eq. 5 and sec. 3.3 in all."""
    random = np.random.default_rng([seed, 11])
    stack = random_stack(random, seed)
    score, window = SCORES[seed % 4], WINDOWS[seed // 4 % 3]
    size = int(random.integers(1, 4))
    sizes = random_sizes(random, TIES[seed % 3], "attentional_width")
    as_the_paper = seed % 2 == 0
    model = Luong(
        **sizes,
        **stack,
        hidden_width=2 * int(random.integers(1, 4)),
        score=score,
        window=window,
        window_size=size,
        max_positions=10,
        input_feeding=input_feeding,
        attention_dropout=0.2,
        initialization="paper" if as_the_paper else "scaled",
    )
    assert ("feed.weight" in weights_of(model)) == input_feeding
    fed_times = 1.0 if as_the_paper else sizes["attentional_width"] ** -0.5
    options = LuongOptions(
        stack["cell"], score, window, size, stack["residual"], stack["reverse_source"], fed_times
    )
    compare(model, seed, lambda source, target: luong(weights_of(model), options, source, target))


# --- without attention, against torch --------------------------------------------------------------------


class Plain(nn.Module):
    """A multi-layer encoder-decoder as one writes it with torch's own layers, for one sentence."""

    def __init__(self, cell: str, width: int, layers: int, bidirectional: bool):
        super().__init__()
        kind: Any = {"lstm": nn.LSTM, "gru": nn.GRU}[cell]
        self.source, self.target = nn.Embedding(13, 6), nn.Embedding(11, 6)
        half = width // (1 + bidirectional)
        self.encoder = kind(6, half, num_layers=layers, batch_first=True, bidirectional=bidirectional)
        self.decoder = kind(6, width, num_layers=layers, batch_first=True)
        self.output = nn.Linear(width, 11)
        self.layers, self.width = layers, width

    def forward(self, source_S: Tensor, target_T: Tensor) -> Tensor:
        def side_by_side(last: Tensor) -> Tensor:
            return last.reshape(self.layers, 1, self.width)

        _, last = self.encoder(self.source(source_S)[None])
        first = side_by_side(last) if isinstance(last, Tensor) else tuple(map(side_by_side, last))
        hidden_1TD, _ = self.decoder(self.target(target_T)[None], first)
        logits: Tensor = self.output(hidden_1TD[0])
        return logits

    def copy(self, model: Any) -> None:
        for ours, theirs in ((model.encoder, self.encoder), (model.decoder, self.decoder)):
            for index, layer in enumerate(ours.layers):
                for name, parameter in layer.named_parameters():
                    getattr(theirs, name.replace("_l0", f"_l{index}")).copy_(parameter)
        for name in ("source", "target", "output"):
            getattr(self, name).load_state_dict(getattr(model.embeddings, name).state_dict())


@torch.no_grad()
@pytest.mark.parametrize("cell", ["lstm", "gru"])
@pytest.mark.parametrize("bidirectional", [False, True], ids=["one-way", "both-ways"])
@pytest.mark.parametrize("reverse", [False, True], ids=["forward", "reversed"])
@pytest.mark.parametrize(
    ("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.float64, 1e-12)], ids=["float32", "float64"]
)
def test_recurrent_against_torch(
    cell: str, bidirectional: bool, reverse: bool, dtype: torch.dtype, tolerance: float
) -> None:
    model = Recurrent(
        source_vocabulary=13,
        target_vocabulary=11,
        embedding_width=6,
        hidden_width=10,
        layers=3,
        dropout=0.5,
        cell=cell,
        bidirectional=bidirectional,
        reverse_source=reverse,
    )
    model.to(dtype).eval()
    randomize(model, 51)
    plain = Plain(cell, 10, 3, bidirectional).to(dtype)
    plain.copy(model)
    sources = [[4, 5, 6, 12, 3], [7, 3], [3], [10, 4, 4, 9, 8, 8, 3]]
    targets = [[2, 4, 8], [2], [2, 3, 3, 7, 8, 8, 4], [2, 5, 6, 7]]
    source_BS, target_BT = padded(sources, 2), padded(targets, 1)
    logits_BTV = model.project(model.decode(target_BT, model.encode(source_BS, source_BS != 0)))
    for b, (source, target) in enumerate(zip(sources, targets, strict=True)):
        read = [*source[-2::-1], 3] if reverse else source  # the words backwards, then their end
        expected_TV = plain(torch.tensor(read), torch.tensor(target))
        close: dict[str, Any] = dict(rtol=tolerance, atol=tolerance)
        torch.testing.assert_close(logits_BTV[b, : len(target)], expected_TV, **close)


# --- limits and first weights ----------------------------------------------------------------------------


def make(kind: str, **options: Any) -> Any:
    """A small model of an architecture, every width different where it may be."""
    sizes: dict[str, Any] = {
        "source_vocabulary": 13,
        "target_vocabulary": 11,
        "embedding_width": 5,
        "hidden_width": 6,
        "dropout": 0.0,
        "tie_embeddings": "none",
    }
    own: dict[str, tuple[type[nn.Module], dict[str, Any]]] = {
        "recurrent": (Recurrent, {"layers": 2}),
        "bahdanau": (Bahdanau, {"attention_width": 4, "maxout_width": 7}),
        "luong": (Luong, {"layers": 2, "attentional_width": 7}),
    }
    torch.manual_seed(52)
    return own[kind][0](**sizes | own[kind][1] | options)


def test_most_source_tokens() -> None:
    assert [make(kind).most_source_tokens for kind in ("recurrent", "bahdanau")] == [None, None]
    for score in SCORES:
        limit = make("luong", score=score, max_positions=9).most_source_tokens
        assert limit == (9 if score == "location" else None), score
    assert [make(kind).most_target_tokens for kind in ("recurrent", "bahdanau", "luong")] == [None] * 3


@torch.no_grad()
@pytest.mark.parametrize("input_feeding", [False, True], ids=["unfed", "fed"])
def test_a_source_beyond_the_location_table(input_feeding: bool) -> None:
    model = make("luong", score="location", max_positions=9, input_feeding=input_feeding)
    target_BT = torch.tensor([[2, 4, 5]])
    longest = torch.full((1, model.most_source_tokens), 4)
    assert model.decode(target_BT, model.encode(longest, longest != 0)).isfinite().all()
    longer = torch.full((1, 10), 4)
    memory = model.encode(longer, longer != 0)
    message = r"source of 10 tokens .*model\.max_positions = 9"
    with pytest.raises(ValueError, match=message):
        model.decode(target_BT, memory)
    with pytest.raises(ValueError, match=message):
        model.step(target_BT[:, :1], memory, model.start(memory))


WIDE: dict[str, Any] = dict(
    source_vocabulary=200,
    target_vocabulary=210,
    embedding_width=50,
    hidden_width=60,
    initialization="paper",
)


@pytest.mark.parametrize(("kind", "half_range"), [("recurrent", 0.08), ("luong", 0.1)])
def test_uniform_first_weights(kind: str, half_range: float) -> None:
    """Sutskever et al. 2014, sec. 3.4; Luong et al. 2015, sec. 4.1: all of them, biases too."""
    model = make(kind, **WIDE)
    for name, parameter in model.named_parameters():
        assert -half_range <= parameter.amin() < -0.6 * half_range, name
        assert 0.6 * half_range < parameter.amax() <= half_range, name
    everything = torch.cat([parameter.detach().flatten() for parameter in model.parameters()])
    assert everything.std().item() == pytest.approx(half_range / 3**0.5, rel=0.02)


def test_first_weights_of_bahdanau() -> None:
    """Appendix B.1."""
    model = make("bahdanau", **WIDE, attention_width=70, maxout_width=30)
    seen = set()
    for name, parameter in model.named_parameters():
        found = parameter.detach()
        if name.split(".")[-2] in ("gates", "candidate"):
            for block in found.split(60):
                torch.testing.assert_close(block @ block.t(), torch.eye(60), rtol=0, atol=1e-5)
            seen.add("orthogonal")
        elif name == "attention.energy.weight" or name.endswith("bias"):
            assert not found.any(), name
            seen.add("zero")
        else:
            deviation = 0.001 if name in ("attention.query.weight", "attention.key.weight") else 0.01
            assert found.std().item() == pytest.approx(deviation, rel=0.1), name
            assert found.abs().amax() > 2.5 * deviation, name  # normal, not uniform
            seen.add(f"normal {deviation}")
    assert len(seen) == 4


@pytest.mark.parametrize(("kind", "blocks"), [("recurrent", 16), ("bahdanau", 9), ("luong", 16)])
def test_recurrent_matrices_begin_orthogonal(kind: str, blocks: int) -> None:
    """Also by default: one a gate, for two layers of LSTM on each side, or for three gated units."""
    model = make(kind)
    found = [
        block
        for name, parameter in model.named_parameters()
        if "weight_hh" in name or name.split(".")[-2] in ("gates", "candidate")
        for block in parameter.detach().split(6)
    ]
    assert len(found) == blocks
    for block in found:
        torch.testing.assert_close(block @ block.t(), torch.eye(6), rtol=0, atol=1e-5)


def test_a_tied_output_matrix_has_the_width_of_what_it_reads() -> None:
    with pytest.raises(ValueError, match="reads vectors of 8, not of 6"):
        Embeddings(5, 5, 8, tie="target", output_width=6)
    assert Embeddings(5, 7, 8, tie="none", output_width=6).project(torch.zeros(2, 6)).shape == (2, 7)
