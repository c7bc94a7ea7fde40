"""Updates whose loss or gradient is not finite: they are skipped, and their batches written out for study."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from nmt.data.batches import Batch
from nmt.data.prepared import TrainingData
from nmt.data.tokenizer import PAD
from nmt.errors import UserError
from nmt.files import write_file
from nmt.gradient import Gradient
from nmt.keeper import Keeper
from nmt.progress import Progress
from nmt.ranks import Ranks


class NonFinite:
    """What one training does about them.

    Args:
        most: skipped in a row, then training ends.
    """

    def __init__(self, gradient: Gradient, ranks: Ranks, keeper: Keeper, most: int):
        self.gradient, self.ranks, self.keeper, self.most = gradient, ranks, keeper, most

    def skip(
        self, progress: Progress, batches: Sequence[Batch], seeds: Sequence[int], loss_sum: float
    ) -> None:
        """Count an update that is not made; UserError after too many in a row.

        The first gradients of float16, and later one in some thousand, overflow the scale of the loss, which
        is halved then: these are nobody's fault, and not counted.
        """
        scaler = self.gradient.scaler
        if math.isfinite(loss_sum) and scaler.is_enabled() and scaler.get_scale() > 1:
            return
        progress.skipped += 1
        progress.skipped_in_row += 1
        how_many = f"{progress.skipped_in_row} in a row" if progress.skipped_in_row > 1 else "one"
        self.keeper.warn(
            progress,
            f"step {progress.step:,}: loss or gradient is not finite; the update is skipped ({how_many})",
        )
        if progress.skipped_in_row >= self.most:
            # In parts a gradient is that of all processes' batches.
            in_parts = self.gradient.parameters.in_parts
            guilty = self.ranks.gather_objects([] if in_parts else culprits(self.gradient, batches, seeds))
            everything = self.ranks.gather_objects(batches)
            found = [b for share in (guilty if any(guilty) else everything) for b in share]
            written = self.ranks.from_first(lambda: self._write_out(progress.step, found))
            before = f", as in the {self.most - 1} before" if self.most > 1 else ""
            raise self._error(f"loss or gradient is not finite in step {progress.step:,}{before}", written)

    def after_validation(self, step: str, what: str) -> UserError:
        """The error where no step can mend the model."""
        return self._error(f"validation after step {step}: {what}")

    def _error(self, what: str, written: str = "") -> UserError:
        whereabouts = self.ranks.from_first(self.keeper.whereabouts)
        return UserError(
            f"{what}; lower training.learning_rate, lengthen "
            f"training.warmup_steps or set training.clip_norm = 1.0 ({whereabouts}{written})"
        )

    def _write_out(self, step: int, batches: Sequence[Batch]) -> str:
        try:
            file = write_batches(self.keeper.run.folder, step, batches, self.keeper.data)
        except OSError as error:
            return f"; its batch could not be written: {error.strerror}"
        return f"; its batch is in {file}"


def culprits(gradient: Gradient, batches: Sequence[Batch], seeds: Sequence[int]) -> list[Batch]:
    """The batches that have no finite loss or gradient by themselves; the model's gradients are lost."""
    found = []
    for batch, seed in zip(batches, seeds, strict=True):
        parameters = list(gradient.model.parameters())
        for parameter in parameters:
            parameter.grad = None
        loss = gradient.of_step([batch], [seed], 1.0, is_share=False)[0]
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
