"""Attention as a picture: which source tokens each target token was written from."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from nmt.checkpoint import LoadedModel
from nmt.data.tokenizer import EOS
from nmt.forced import attention
from nmt.translator import Translator


def attention_weights(
    loaded: LoadedModel, source: str, target: str | None = None
) -> tuple[npt.NDArray[np.float64], list[str], list[str]]:
    """Attention over the source of one sentence, the mean of all layers and heads.

    Args:
        target: None takes the model's own translation.

    Returns:
        Weights (target tokens + end, source tokens + end), each row summing to 1, and the pieces.

    Raises:
        UserError: the model has no attention.
    """
    if target is None:
        target = next(Translator.of(loaded).translate([source])).text
    source_ids = loaded.source_tokenizer.encode(source)
    target_ids = loaded.target_tokenizer.encode(target)
    ((_, weights_LHTS),) = attention(loaded, [source_ids], [target_ids])
    weights: npt.NDArray[np.float64] = weights_LHTS.mean(axis=(0, 1), dtype=np.float64)
    source_pieces = loaded.source_tokenizer.pieces([*source_ids, EOS])
    return weights, source_pieces, loaded.target_tokenizer.pieces([*target_ids, EOS])


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
