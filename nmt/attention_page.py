"""Attention as a page: one HTML file that asks for nothing else, to look at every layer and head.

L layers, H heads, Q queries, K keys.
"""

from __future__ import annotations

import base64
import zlib
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from nmt.attention_maps import (
    KINDS,
    TITLES,
    Pair,
    attention_maps,
    pieces_of,
    rows_and_columns,
    words_of,
)
from nmt.checkpoint import LoadedModel
from nmt.data.tokenizer import SPACE
from nmt.errors import counted
from nmt.forced import Weights
from nmt.page import fill_page

PARTS = 1000  # weights are written in thousandths


def attention_page(
    loaded: LoadedModel,
    pairs: Sequence[Pair],
    *,
    title: str,
    kind: str | None = None,
    layer: int | None = None,
    head: int | None = None,
    words: bool = False,
    tell: Callable[[int], None] = lambda _: None,
) -> str:
    """The page with the attention of sentence pairs.

    Args:
        kind, layer, head, words: what is shown first; a layer or head of None is the mean.
        tell: called with the number of pairs done.

    Raises:
        UserError: the model has no attention.
    """
    sentences: list[dict[str, Any]] = [{}] * len(pairs)
    for done, (index, maps) in enumerate(attention_maps(loaded, pairs), start=1):
        pair = pairs[index]
        used = {side for of in maps for side in rows_and_columns(of)}
        sentences[index] = {
            "line": pair.line,
            "source": pair.source,
            "target": pair.target,
            "sides": {side: _side(loaded, pair, side) for side in sorted(used)},
            "maps": {
                of: dict(zip(("rows", "columns"), rows_and_columns(of), strict=True)) | _packed(maps[of])
                for of in KINDS
                if of in maps
            },
        }
        tell(done)
    shown = list(sentences[0]["maps"])
    about = f"{loaded.config.model.architecture}, {counted(len(pairs), 'sentence')}"
    data = {
        "about": about + "; a row is what looks, a column what is looked at",
        "kinds": TITLES,
        "state": {
            "kind": kind if kind in shown else shown[-1],
            "layer": layer or 0,
            "head": head or 0,
            "words": words,
        },
        "sentences": sentences,
    }
    return fill_page("attention", title, data)


def _side(loaded: LoadedModel, pair: Pair, side: str) -> dict[str, Any]:
    return {
        "tokens": [piece.replace(SPACE, "·") for piece in pieces_of(loaded, pair, side)],
        "words": [[word.text.replace(SPACE, "·"), word.tokens] for word in words_of(loaded, pair, side)],
    }


def _packed(weights_LHQK: Weights) -> dict[str, Any]:
    parts = np.round(weights_LHQK * PARTS).astype("<u2").tobytes()
    return {
        "shape": list(weights_LHQK.shape),
        "weights": base64.b64encode(zlib.compress(parts)).decode(),
    }
