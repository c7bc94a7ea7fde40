"""Gradients by finite differences, through each model and our own loss; shared embeddings as one matrix."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from papers import CLOSE, randomize
from torch import Tensor, nn

from nmt.loss import cross_entropy_sum
from nmt.models.recurrent import Bahdanau, Luong, Recurrent
from nmt.models.transformer import Transformer

KINDS: dict[str, tuple[type[nn.Module], dict[str, Any]]] = {
    "transformer": (
        Transformer,
        dict(encoder_layers=1, decoder_layers=1, width=4, feed_forward_width=6, heads=2, max_positions=8),
    ),
    "recurrent": (Recurrent, dict(embedding_width=4, hidden_width=4, layers=2)),
    "bahdanau": (Bahdanau, dict(embedding_width=4, hidden_width=3, attention_width=5, maxout_width=4)),
    "luong": (
        Luong,
        dict(
            embedding_width=4,
            hidden_width=6,
            attentional_width=4,
            layers=2,
            window_size=1,
            max_positions=8,
        ),
    ),
}


def tiny(kind: str, **options: Any) -> Any:
    made, sizes = KINDS[kind]
    model = made(**{"source_vocabulary": 7, "target_vocabulary": 7, "dropout": 0.0} | sizes | options)
    model.double()
    randomize(model, 34, scale=1.0)
    return model


def loss_of(model: Any) -> Tensor:
    """Of two sentences, one of them padded on both sides."""
    source_BS = torch.tensor([[4, 5, 6, 4, 3], [6, 3, 0, 0, 0]])
    input_BT = torch.tensor([[2, 4, 6, 5], [2, 5, 0, 0]])
    output_BT = torch.tensor([[4, 6, 5, 3], [5, 3, 0, 0]])
    is_token_BT = output_BT != 0
    hidden_BTD = model.decode(input_BT, model.encode(source_BS, source_BS != 0))
    layer = model.embeddings.output
    smoothed, _ = cross_entropy_sum(
        hidden_BTD[is_token_BT], layer.weight, layer.bias, output_BT[is_token_BT], smoothing=0.1, chunk=4
    )
    return smoothed


SCORES = ["dot", "general", "concat", "location"]
WINDOWS = ["global", "local-m", "local-p"]
LUONG = {
    f"luong-{score}-{window}-{'fed' if fed else 'unfed'}": (
        "luong",
        dict(score=score, window=window, input_feeding=fed, tie_embeddings="target"),
    )
    for score in SCORES
    for window in WINDOWS
    for fed in (True, False)
}
VARIANTS: dict[str, tuple[str, dict[str, Any]]] = {
    "transformer-post-tied": ("transformer", dict(tie_embeddings="all")),
    "transformer-pre": ("transformer", dict(norm="pre", positions="learned", tie_embeddings="none")),
    "recurrent-lstm": ("recurrent", dict(cell="lstm")),
    "recurrent-gru": ("recurrent", dict(cell="gru", tie_embeddings="target")),
    "recurrent-lstm-both-ways": ("recurrent", dict(cell="lstm", bidirectional=True)),
    "recurrent-gru-both-ways": ("recurrent", dict(cell="gru", bidirectional=True)),
    "recurrent-reversed": ("recurrent", dict(reverse_source=True, tie_embeddings="all")),
    "recurrent-residual": ("recurrent", dict(layers=3, residual=True)),
    "recurrent-everything": (
        "recurrent",
        dict(cell="gru", layers=3, residual=True, bidirectional=True, reverse_source=True),
    ),
    "bahdanau": ("bahdanau", dict(tie_embeddings="none")),
    "bahdanau-tied": ("bahdanau", dict(tie_embeddings="target")),
    "bahdanau-all-tied": ("bahdanau", dict(tie_embeddings="all")),
    **LUONG,
    "luong-gru-fed": ("luong", dict(cell="gru", tie_embeddings="none")),
    "luong-gru-unfed": ("luong", dict(cell="gru", input_feeding=False, tie_embeddings="all")),
    "luong-everything": (
        "luong",
        dict(window="local-p", layers=3, residual=True, bidirectional=True, reverse_source=True),
    ),
}


@pytest.mark.parametrize("variant", VARIANTS)
def test_gradients(variant: str) -> None:
    """Right, and not zero for any parameter."""
    kind, options = VARIANTS[variant]
    model = tiny(kind, **options)
    parameters = tuple(model.parameters())
    assert torch.autograd.gradcheck(
        lambda *_: loss_of(model), parameters, fast_mode=True, atol=1e-8, rtol=1e-4
    )
    loss_of(model).backward()
    for name, parameter in model.named_parameters():  # nothing is left out
        assert parameter.grad is not None, name
        assert parameter.grad.abs().sum() > 1e-3, name


@pytest.mark.parametrize("score", SCORES)
@pytest.mark.parametrize("window", WINDOWS)
def test_what_has_weights(score: str, window: str) -> None:
    """The dot score has none (sec. 3.1), so only the prediction of the position is learned."""
    model = tiny("luong", score=score, window=window)
    expected = {"dot": 0, "general": 36, "concat": 36 + 36 + 6, "location": 8 * 6}[score]
    expected += 36 + 6 if window == "local-p" else 0
    assert sum(parameter.numel() for parameter in model.attention.parameters()) == expected


# --- shared embeddings -----------------------------------------------------------------------------------

NAMES = ("source", "target", "output")
SHARED: dict[str, list[set[str]]] = {
    "none": [{"source"}, {"target"}, {"output"}],
    "target": [{"source"}, {"target", "output"}],
    "all": [{"source", "target", "output"}],
}


@pytest.mark.parametrize("tie", SHARED)
@pytest.mark.parametrize("kind", KINDS)
def test_tied_embeddings_are_one_matrix(kind: str, tie: str) -> None:
    """Its gradient is the sum of those of its uses, and an update changes all of them alike."""
    model, loose = tiny(kind, tie_embeddings=tie), tiny(kind, tie_embeddings="none")
    loose.load_state_dict(model.state_dict())
    loss_of(model).backward()
    loss_of(loose).backward()
    matrices = {name: getattr(model.embeddings, name).weight for name in NAMES}
    assert len({id(matrix) for matrix in matrices.values()}) == len(SHARED[tie])
    for group in SHARED[tie]:
        parts = [getattr(loose.embeddings, name).weight.grad for name in group]
        assert all(part.any() for part in parts)
        for name in group:
            torch.testing.assert_close(matrices[name].grad, sum(parts), **CLOSE)
    fewer = sum(p.numel() for p in loose.parameters()) - sum(p.numel() for p in model.parameters())
    assert fewer == (3 - len(SHARED[tie])) * 7 * 4
    before = {name: matrix.detach().clone() for name, matrix in matrices.items()}
    torch.optim.SGD(model.parameters(), lr=0.1).step()
    for group in SHARED[tie]:
        updated = [model.state_dict()[f"embeddings.{name}.weight"] for name in sorted(group)]
        assert not torch.equal(updated[0], before[min(group)])
        assert all(torch.equal(matrix, updated[0]) for matrix in updated)


@pytest.mark.parametrize("kind", KINDS)
def test_one_matrix_for_all_needs_one_vocabulary(kind: str) -> None:
    with pytest.raises(ValueError, match="needs one vocabulary"):
        tiny(kind, tie_embeddings="all", source_vocabulary=8)
