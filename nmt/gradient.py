"""The gradient of a step: the loss of its batches, in parts where memory does not hold a whole one.

B sentences, S source length, T target length, N positions, D width, V vocabulary.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from nmt.budget import is_out_of_memory
from nmt.data.batches import Batch
from nmt.data.tokenizer import PAD
from nmt.errors import UserError
from nmt.guided import Guided, Record
from nmt.linear import give_back_memory
from nmt.loss import cross_entropy_sum
from nmt.models.seam import Model
from nmt.parameters import Parameters
from nmt.precision import Precision
from nmt.r_drop import r_drop_sum
from nmt.ranks import ALONE


class Gradient:
    """Computes losses of batches and adds up their gradients in the model's parameters.

    Where memory runs out the step begins again with the batch in parts, so its gradient is the same up to
    rounding, and with dropout up to the draws: those of a part are not those of its rows in the whole.

    Args:
        scaler: of float16; it may be one that is not enabled.
        z_loss: weight of (log Z)^2 (`nmt.loss`); 0 is off.
        r_drop: alpha of R-Drop, which makes two passes of a batch (`nmt.r_drop`); 0 is off.
        parameters: the model's, where they are not all in this process alone.
        guided: the head that learns the links of batches that have some.
    """

    def __init__(
        self,
        model: Model,
        device: torch.device,
        *,
        precision: Precision,
        smoothing: float,
        scaler: Any,
        z_loss: float = 0.0,
        r_drop: float = 0.0,
        parameters: Parameters | None = None,
        guided: Guided | None = None,
    ):
        self.model = model
        self.parameters = parameters or Parameters(model, ALONE)
        self.device = device
        self.precision = precision
        self.smoothing = smoothing
        self.z_loss, self.r_drop = z_loss, r_drop
        self.guided = guided
        self.scaler = scaler
        self.most_tokens = 0  # of a part, padding counted; 0: memory never ran out
        self._at_work: Batch | None = None

    def of_step(
        self, batches: Sequence[Batch], seeds: Sequence[int], divisor: float, *, is_share: bool = True
    ) -> list[float]:
        """Add the gradient of the batches' summed loss, divided by `divisor`, to parameters that have none.

        Args:
            seeds: for each batch, that of its dropout.
            divisor: the target tokens or sentences (`training.loss_per`) of the whole step, of which these
                batches may be a share.
            is_share: that they are all of a step in this process, whose sums over processes may begin.

        Returns:
            The loss of each batch without smoothing, summed over its target tokens.

        Raises:
            UserError: there is not memory enough for a single sentence.
        """
        while True:
            try:
                losses = [
                    self._add(batch, seed, divisor, is_last=is_share and number == len(batches))
                    for number, (batch, seed) in enumerate(zip(batches, seeds, strict=True), start=1)
                ]
                # Asked for once all is under way: a GPU computes meanwhile.
                return [sum(part.item() for part in parts) for parts in losses]
            except Exception as error:
                if not is_out_of_memory(error):
                    raise
                if self.parameters.in_parts:
                    raise UserError(
                        "out of memory; with training.shard no step can be repeated in smaller parts: use "
                        "more processes, or lower training.batch_tokens in a new run (--run)"
                    ) from None
            # Here, where nothing refers to the failed step any more.
            self._lower_limit()
            self.parameters.pass_failed()
            for parameter in self.model.parameters():
                parameter.grad = None

    def _add(self, batch: Batch, seed: int, divisor: float, *, is_last: bool) -> list[Tensor]:
        """The losses of the batch's parts, without smoothing."""
        torch.manual_seed(seed)
        losses = []
        parts = [batch] if self.parameters.in_parts else list(self._parts(batch))
        for number, part in enumerate(parts, start=1):
            self._at_work = part
            loss, plain = self.parameters.one_pass(self._loss_to_minimise, part)
            if is_last and number == len(parts):
                self.parameters.before_last_pass()
            self.scaler.scale(loss / divisor).backward()
            losses.append(plain)
        return losses

    def _loss_to_minimise(self, part: Batch) -> tuple[Tensor, Tensor]:
        return self._r_drop(part) if self.r_drop else self.loss(part, self.smoothing)

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
        hidden_ND, target_N, guided = self._hidden(batch)
        weight_VD, bias_V = self._output()
        loss, plain = cross_entropy_sum(
            *(hidden_ND, weight_VD, bias_V, target_N),
            smoothing=smoothing,
            z_loss=self.z_loss,
            factors=self.precision.output,
        )
        return (loss if guided is None else loss + guided), plain

    def _r_drop(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """As `loss`, of two passes that drop different units."""
        (hidden1_ND, target_N, guided1), (hidden2_ND, _, guided2) = self._hidden(batch), self._hidden(batch)
        weight_VD, bias_V = self._output()
        loss, plain = r_drop_sum(
            *(hidden1_ND, hidden2_ND, weight_VD, bias_V, target_N),
            alpha=self.r_drop,
            smoothing=self.smoothing,
            factors=None if self.precision.output == torch.int8 else self.precision.output,  # none of int8
        )
        if guided1 is not None and guided2 is not None:
            loss = loss + (guided1 + guided2) / 2
        return loss, plain

    def _hidden(self, batch: Batch) -> tuple[Tensor, Tensor, Tensor | None]:
        """Hidden states (N, D) and targets (N) of all target positions that are no padding, and the loss of
        the guided head where there are links."""
        source_BS = self._moved(batch.source_BS)
        input_BT = self._moved(batch.target_input_BT)
        # Which positions hold a token is found here: asked, a GPU would have to finish first.
        output_M = batch.target_output_BT.reshape(-1)
        places_N = np.flatnonzero(output_M != PAD)
        target_N = self._moved(output_M[places_N])
        links_N3 = batch.links_N3
        guided = self.guided if links_N3 is not None and len(links_N3) else None
        record, layer = (None, None) if guided is None else (Record(), guided.layer)
        with self.precision.of_layers(self.device):
            memory = self.model.encode(source_BS, source_BS != PAD)
            hidden_BTD = self.model.decode(input_BT, memory, record, layer)
        hidden_ND = hidden_BTD.flatten(0, 1)[self._moved(places_N)]
        reduced = self.precision.autocast
        hidden_ND = hidden_ND if reduced is None else hidden_ND.to(reduced)
        if guided is None or record is None or links_N3 is None:
            return hidden_ND, target_N, None
        return hidden_ND, target_N, guided.loss(record[0], links_N3)

    def _moved(self, ids: npt.NDArray[np.int64]) -> Tensor:
        """Onto the device, which is not waited for."""
        tensor = torch.from_numpy(ids)
        if self.device.type == "cuda":
            return tensor.pin_memory().to(self.device, non_blocking=True)
        return tensor.to(self.device)

    def _output(self) -> tuple[Tensor, Tensor | None]:
        """The output matrix and its bias."""
        output = self.model.embeddings.output
        weight_VD: Tensor = output.weight
        bias_V: Tensor | None = output.bias
        reduced = self.precision.autocast
        if reduced is not None:
            weight_VD = weight_VD.to(reduced)
            bias_V = None if bias_V is None else bias_V.to(reduced)
        return weight_VD, bias_V

    @contextmanager
    def judging(self, model: Model) -> Iterator[None]:
        """Meanwhile losses alone are those of another model."""
        own, self.model = self.model, model
        try:
            yield
        finally:
            self.model = own

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
        give_back_memory()
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
        _links_of(batch, rows),
    )


def _links_of(batch: Batch, rows: npt.NDArray[np.int64]) -> npt.NDArray[np.int64] | None:
    """The links of some of the sentences, which are ascending, with their new numbers."""
    if batch.links_N3 is None:
        return None
    links_N3 = batch.links_N3[np.isin(batch.links_N3[:, 0], rows)]
    links_N3[:, 0] = np.searchsorted(rows, links_N3[:, 0])
    return links_N3
