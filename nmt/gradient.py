"""The gradient of a step: the loss of its batches, in parts where memory does not hold a whole one.

B sentences, S source length, T target length, N positions, D width, V vocabulary.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import numpy as np
import torch
from torch import Tensor

from nmt.budget import is_out_of_memory
from nmt.data.batches import Batch
from nmt.data.tokenizer import PAD
from nmt.errors import UserError
from nmt.linear import available, products_of
from nmt.loss import cross_entropy_sum
from nmt.r_drop import r_drop_sum

REDUCED = {"bfloat16": torch.bfloat16, "float16": torch.float16}


class Gradient:
    """Computes losses of batches and adds up their gradients in the model's parameters.

    Where memory runs out the step begins again with the batch in parts, so its gradient is the same up to
    rounding, and with dropout up to the draws: those of a part are not those of its rows in the whole.

    Args:
        scaler: of float16; it may be one that is not enabled.
        r_drop: alpha of R-Drop, which makes two passes of a batch (`nmt.r_drop`); 0 is off.
    """

    def __init__(
        self,
        model: Any,
        device: torch.device,
        *,
        precision: str,
        smoothing: float,
        scaler: Any,
        r_drop: float = 0.0,
    ):
        self.model = model
        self.device = device
        self.reduced = REDUCED.get(precision)
        # On a CPU that can, products alone are of the reduced type; else all that autocast makes so.
        self.factors = None
        if device.type == "cpu" and self.reduced == torch.bfloat16 and available(torch.bfloat16):
            self.factors = self.reduced
        self.smoothing = smoothing
        self.r_drop = r_drop
        self.scaler = scaler
        self.most_tokens = 0  # of a part, padding counted; 0: memory never ran out
        self._at_work: Batch | None = None

    def of_step(self, batches: Sequence[Batch], seeds: Sequence[int], tokens: float) -> list[float]:
        """Add the gradient of the batches' summed loss, divided by `tokens`, to parameters that have none.

        Args:
            seeds: for each batch, that of its dropout.

        Returns:
            The loss of each batch without smoothing, summed over its target tokens.

        Raises:
            UserError: there is not memory enough for a single sentence.
        """
        while True:
            try:
                return [self._add(b, seed, tokens) for b, seed in zip(batches, seeds, strict=True)]
            except Exception as error:
                if not is_out_of_memory(error):
                    raise
            # Here, where nothing refers to the failed step any more.
            self._lower_limit()
            for parameter in self.model.parameters():
                parameter.grad = None

    def _add(self, batch: Batch, seed: int, tokens: float) -> float:
        torch.manual_seed(seed)
        total = 0.0
        for part in self._parts(batch):
            loss, plain = self._r_drop(part) if self.r_drop else self.loss(part, self.smoothing)
            self.scaler.scale(loss / tokens).backward()
            total += plain.item()
        return total

    def loss_alone(self, batch: Batch) -> float:
        """The loss without smoothing and without a gradient, summed over the target tokens of a batch."""
        while True:
            try:
                return sum(self.loss(part, 0.0)[1].item() for part in self._parts(batch))
            except Exception as error:
                if not is_out_of_memory(error):
                    raise
            self._lower_limit()

    def loss(self, batch: Batch, smoothing: float) -> tuple[Tensor, Tensor]:
        """Summed over the target tokens of a batch: the loss to minimise, and without smoothing."""
        hidden_ND, target_N = self._hidden(batch)
        weight_VD, bias_V = self._output()
        return cross_entropy_sum(
            hidden_ND, weight_VD, bias_V, target_N, smoothing=smoothing, factors=self.factors
        )

    def _r_drop(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """As `loss`, of two passes that drop different units."""
        (hidden1_ND, target_N), (hidden2_ND, _) = self._hidden(batch), self._hidden(batch)
        weight_VD, bias_V = self._output()
        return r_drop_sum(
            *(hidden1_ND, hidden2_ND, weight_VD, bias_V, target_N),
            alpha=self.r_drop,
            smoothing=self.smoothing,
            factors=self.factors,
        )

    def _hidden(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Hidden states (N, D) and targets (N) of all target positions that are no padding."""
        source_BS = torch.from_numpy(batch.source_BS).to(self.device)
        input_BT = torch.from_numpy(batch.target_input_BT).to(self.device)
        output_BT = torch.from_numpy(batch.target_output_BT).to(self.device)
        with self._precision():
            memory = self.model.encode(source_BS, source_BS != PAD)
            hidden_BTD = self.model.decode(input_BT, memory)
        is_token_BT = output_BT != PAD
        hidden_ND = hidden_BTD[is_token_BT]
        reduced = self.reduced is not None and self.factors is None
        return (hidden_ND.to(self.reduced) if reduced else hidden_ND), output_BT[is_token_BT]

    def _output(self) -> tuple[Tensor, Tensor | None]:
        """The output matrix and its bias."""
        output = self.model.embeddings.output
        weight_VD, bias_V = output.weight, output.bias
        if self.reduced is not None and self.factors is None:
            weight_VD = weight_VD.to(self.reduced)
            bias_V = None if bias_V is None else bias_V.to(self.reduced)
        return weight_VD, bias_V

    def _precision(self) -> AbstractContextManager[None]:
        """Of what the model computes."""
        if self.reduced is None:
            return nullcontext()
        if self.factors is not None:
            return products_of(self.factors)
        autocast: AbstractContextManager[None] = torch.autocast(self.device.type, self.reduced)
        return autocast

    # Memory

    def _parts(self, batch: Batch) -> Iterator[Batch]:
        for part in split(batch, self.most_tokens) if self.most_tokens else [batch]:
            self._at_work = part
            yield part

    def _lower_limit(self) -> None:
        """After memory ran out: half of what was at work."""
        part = self._at_work
        assert part is not None
        if len(part.source_BS) == 1:
            longest = max(part.source_BS.shape[1], part.target_output_BT.shape[1])
            raise UserError(
                f"out of memory with a single sentence pair of {longest} tokens; lower data.max_tokens, "
                "choose a smaller model, or train on another device"
            )
        self.most_tokens = size(part) // 2
        gc.collect()
        if self.device.type == "cuda":
            torch.cuda.empty_cache()


def size(batch: Batch) -> int:
    """Sentences times the longest of either side."""
    longest = max(batch.source_BS.shape[1], batch.target_output_BT.shape[1])
    return int(len(batch.source_BS) * longest)


def target_tokens(batch: Batch) -> int:
    return int((batch.target_output_BT != PAD).sum())


def split(batch: Batch, most_tokens: int) -> list[Batch]:
    """A batch as parts of at most so many tokens, padding counted, or of one sentence each."""
    rows = len(batch.source_BS)
    most_rows = max(1, most_tokens * rows // size(batch))
    return [_rows(batch, part) for part in np.array_split(np.arange(rows), -(-rows // most_rows))]


def _rows(batch: Batch, rows: Any) -> Batch:
    """Some of the sentences, without columns that are padding alone."""
    source_BS, output_BT = batch.source_BS[rows], batch.target_output_BT[rows]
    sources, targets = ((ids != PAD).any(axis=0).sum() for ids in (source_BS, output_BT))
    return Batch(
        source_BS[:, :sources],
        batch.target_input_BT[rows][:, :targets],
        output_BT[:, :targets],
    )
