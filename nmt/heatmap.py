"""Attention as a picture, for a paper: one heatmap, or what all heads do."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

FORMATS = (".png", ".svg", ".pdf")
LONGEST_LABEL = 40  # characters
# No date in the file: the same picture is the same bytes.
_UNDATED: dict[str, dict[str, Any]] = {
    ".png": {"Software": None},
    ".svg": {"Date": None},
    ".pdf": {"CreationDate": None},
}


def draw(
    weights: npt.NDArray[Any],
    source: Sequence[str],
    target: Sequence[str],
    suffix: str,
    title: str = "",
) -> bytes:
    """A heatmap: `target`, which looks, down the side, `source`, which is looked at, along the top.

    Args:
        weights: (target, source).
        suffix: of `FORMATS`.
    """
    from matplotlib.figure import Figure

    source, target = ([_shown(piece) for piece in side] for side in (source, target))
    # Room for the labels: a character is a twelfth of an inch at most, but for wide scripts, which are few.
    beside, above = (1.2 + max(map(len, side)) / 12 for side in (target, source))
    size = (beside + 0.38 * len(source), above + 0.32 * len(target))
    figure = Figure(figsize=size, layout="constrained")
    axes = figure.subplots()
    axes.imshow(weights, cmap="Greys", vmin=0, vmax=1, aspect="auto")
    axes.set_xticks(range(len(source)), source, rotation=60, ha="left")
    axes.set_yticks(range(len(target)), target)
    axes.xaxis.tick_top()
    if title:
        axes.set_xlabel(title.replace("$", r"\$"))
    return _saved(figure, suffix)


def draw_heads(
    scores: Mapping[str, Mapping[str, npt.NDArray[np.float64]]], suffix: str, title: str = ""
) -> bytes:
    """A small heatmap for each score and kind of attention: layers down the side, heads along the top.

    Args:
        scores: score -> kind -> (layers, heads), NaN where a head has none. A score's kinds share a scale.
        suffix: of `FORMATS`.
    """
    from matplotlib.figure import Figure

    kinds = list(dict.fromkeys(kind for by_kind in scores.values() for kind in by_kind))
    layers = max(values.shape[0] for by_kind in scores.values() for values in by_kind.values())
    heads = max(values.shape[1] for by_kind in scores.values() for values in by_kind.values())
    size = (1.2 + len(kinds) * (0.7 + 0.5 * heads), 0.6 + len(scores) * (0.75 + 0.4 * layers))
    figure = Figure(figsize=size, layout="constrained")
    grid = figure.subplots(len(scores), len(kinds), squeeze=False)
    for row, (score, by_kind) in enumerate(scores.items()):
        found = np.concatenate([values.ravel() for values in by_kind.values()])
        most = float(np.nanmax(found)) if not np.isnan(found).all() else 1.0
        for column, kind in enumerate(kinds):
            axes = grid[row][column]
            values = by_kind.get(kind)
            if values is None or np.isnan(values).all():
                axes.axis("off")
                continue
            _draw_scores(axes, values, max(most, 1e-9))
            axes.set_title(f"{kind}: {score}", fontsize=8)
    if title:
        figure.suptitle(title.replace("$", r"\$"), fontsize=9)
    return _saved(figure, suffix)


def _draw_scores(axes: Any, values: npt.NDArray[np.float64], most: float) -> None:
    axes.imshow(values, cmap="Greys", vmin=0, vmax=most, aspect="auto")
    axes.set_xticks(range(values.shape[1]), range(1, values.shape[1] + 1), fontsize=7)
    axes.set_yticks(range(values.shape[0]), range(1, values.shape[0] + 1), fontsize=7)
    for (layer, head), value in np.ndenumerate(values):
        if not np.isnan(value):
            colour = "white" if value > most * 0.6 else "black"
            axes.text(head, layer, f"{value:.2f}", ha="center", va="center", fontsize=6, color=colour)


def _saved(figure: Any, suffix: str) -> bytes:
    from matplotlib import rc_context

    buffer = io.BytesIO()
    with rc_context({"svg.hashsalt": "nmt"}):
        figure.savefig(buffer, format=suffix.removeprefix("."), dpi=150, metadata=_UNDATED[suffix])
    return buffer.getvalue()


def _shown(piece: str) -> str:
    # matplotlib reads a pair of dollar signs as mathematics; an SVG cannot hold control characters.
    text = "".join(c if c.isprintable() or c == " " else f"<{ord(c):X}>" for c in piece)
    text = text if len(text) <= LONGEST_LABEL else text[: LONGEST_LABEL - 1] + "…"
    return text.replace("$", r"\$")
