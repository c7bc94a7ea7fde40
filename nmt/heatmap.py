"""Attention as a picture: which source tokens each target token was written from."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from nmt.checkpoint import LoadedModel
from nmt.data.batches import pad
from nmt.data.tokenizer import BOS, EOS, PAD
from nmt.translator import Translator


def attention_weights(
    loaded: LoadedModel, source: str, target: str | None = None
) -> tuple[npt.NDArray[np.float64], list[str], list[str]]:
    """Attention over the source of one sentence, the mean of all layers and heads.

    Args:
        target: None takes the model's own translation.

    Returns:
        Weights (target tokens + end, source tokens + end), each row summing to 1, and the pieces.
    """
    if target is None:
        target = next(Translator.of(loaded).translate([source])).text
    source_ids = [*loaded.source_tokenizer.encode(source), EOS]
    target_ids = [*loaded.target_tokenizer.encode(target), EOS]
    device = next(loaded.model.parameters()).device
    record: list[Any] = []
    with torch.inference_mode():
        source_BS = torch.from_numpy(pad([source_ids], PAD)).to(device)
        memory = loaded.model.encode(source_BS, source_BS != PAD)
        loaded.model.decode(torch.from_numpy(pad([[BOS, *target_ids[:-1]]], PAD)).to(device), memory, record)
    # The Transformer records attention over the memory, then over the prefix, layer by layer.
    if loaded.config.model.architecture == "transformer":
        record = record[::2]
    weights: npt.NDArray[np.float64] = (
        torch.stack([w[0].mean(dim=0) for w in record]).mean(dim=0).double().cpu().numpy()
    )
    return weights, loaded.source_tokenizer.pieces(source_ids), loaded.target_tokenizer.pieces(target_ids)


def draw(
    weights: npt.NDArray[np.float64],
    source: Sequence[str],
    target: Sequence[str],
    file: Path,
    title: str = "",
) -> None:
    """Write a heatmap: target tokens down the side, source tokens along the top.

    The suffix of `file` names the format.
    """
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    size = (2 + 0.38 * len(source), 1.6 + 0.32 * len(target))
    figure, axes = pyplot.subplots(figsize=size, layout="constrained")
    axes.imshow(weights, cmap="Greys", vmin=0, vmax=1, aspect="auto")
    axes.set_xticks(range(len(source)), [_shown(piece) for piece in source], rotation=60, ha="left")
    axes.set_yticks(range(len(target)), [_shown(piece) for piece in target])
    axes.xaxis.tick_top()
    if title:
        axes.set_xlabel(title)
    # No date in the file: the same picture is the same bytes.
    undated = {".png": {"Software": None}, ".svg": {"Date": None}, ".pdf": {"CreationDate": None}}
    with matplotlib.rc_context({"svg.hashsalt": "nmt"}):
        figure.savefig(file, dpi=150, metadata=undated.get(file.suffix))
    pyplot.close(figure)


def _shown(piece: str) -> str:
    # matplotlib reads a pair of dollar signs as mathematics.
    return piece.replace("$", r"\$")
