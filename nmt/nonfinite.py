"""A batch whose loss or gradient is not finite, written out for study."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from nmt.data.batches import Batch
from nmt.data.prepared import TrainingData
from nmt.data.tokenizer import PAD
from nmt.files import write_file
from nmt.gradient import Gradient


def culprits(gradient: Gradient, batches: Sequence[Batch], seeds: Sequence[int]) -> list[Batch]:
    """The batches that have no finite loss or gradient by themselves; the model's gradients are lost."""
    found = []
    for batch, seed in zip(batches, seeds, strict=True):
        parameters = list(gradient.model.parameters())
        for parameter in parameters:
            parameter.grad = None
        loss = gradient.of_step([batch], [seed], 1.0)[0]
        grads = [p.grad for p in parameters if p.grad is not None]
        if not (math.isfinite(loss) and all(bool(g.isfinite().all()) for g in grads)):
            found.append(batch)
    for parameter in gradient.model.parameters():
        parameter.grad = None
    return found


def write_batches(folder: Path, step: int, batches: Sequence[Batch], data: TrainingData) -> Path:
    """Write token ids as numpy arrays, and beside them the text, a pair a line with a tab between.

    Returns:
        The file of ids; arrays are named source_1, target_1 (ids of batch 1, padded with 0) and so on.
    """
    arrays = {}
    lines = []
    for number, batch in enumerate(batches, start=1):
        arrays[f"source_{number}"], arrays[f"target_{number}"] = batch.source_BS, batch.target_output_BT
        for source, target in zip(batch.source_BS, batch.target_output_BT, strict=True):
            # Without the end of sentence.
            ids = [side[side != PAD][:-1].tolist() for side in (source, target)]
            lines.append(f"{data.source_tokenizer.decode(ids[0])}\t{data.target_tokenizer.decode(ids[1])}\n")
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)  # type: ignore[arg-type]
    file = folder / f"nonfinite-step-{step:08d}.npz"
    write_file(file, buffer.getvalue())
    write_file(file.with_suffix(".tsv"), "".join(lines))
    return file
