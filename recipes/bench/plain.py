"""The training loop one writes with PyTorch alone, for comparison: `torch.nn.Transformer`, the cross-entropy
of all logits at once, Adam, and autocast where products are in bfloat16.

B sentences, S source length, T target length, D width, V vocabulary.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from nmt.data.batches import Batch
from nmt.data.tokenizer import PAD
from nmt.model_config import TransformerConfig
from nmt.models.positions import sinusoidal_positions
from nmt.training_config import TrainingConfig


class PlainTransformer(nn.Module):
    """The sizes of a configuration in PyTorch's own layers; one embedding for both sides and the output."""

    def __init__(self, settings: TransformerConfig, vocabulary: int):
        super().__init__()
        self.embedding = nn.Embedding(vocabulary, settings.width, padding_idx=PAD)
        nn.init.normal_(self.embedding.weight, std=settings.width**-0.5)
        self.transformer = nn.Transformer(
            settings.width,
            settings.heads,
            settings.encoder_layers,
            settings.decoder_layers,
            settings.feed_forward_width,
            settings.dropout,
            batch_first=True,
            norm_first=settings.norm == "pre",
        )
        self.dropout = nn.Dropout(settings.dropout)

    def forward(self, source_BS: Tensor, input_BT: Tensor) -> Tensor:
        """Logits (B, T, V)."""
        padding_BS = source_BS == PAD
        causal_TT = nn.Transformer.generate_square_subsequent_mask(
            input_BT.size(1), device=input_BT.device
        ).isinf()
        hidden_BTD = self.transformer(
            self._embed(source_BS),
            self._embed(input_BT),
            tgt_mask=causal_TT,
            src_key_padding_mask=padding_BS,
            memory_key_padding_mask=padding_BS,
            tgt_is_causal=True,
        )
        logits_BTV: Tensor = F.linear(hidden_BTD, self.embedding.weight)
        return logits_BTV

    def _embed(self, ids: Tensor) -> Tensor:
        embedded = self.embedding(ids) * self.embedding.embedding_dim**0.5
        dropped: Tensor = self.dropout(
            embedded + sinusoidal_positions(0, ids.size(1), embedded.size(-1), like=embedded)
        )
        return dropped


class PlainLoop:
    """Batches in, updates out. The rate is constant: how fast a loop is does not depend on it."""

    def __init__(
        self, model: PlainTransformer, settings: TrainingConfig, device: torch.device, rate: float = 1e-4
    ):
        self.model = model.to(device).train()
        self.settings = settings
        self.device = device
        self.optimizer = torch.optim.Adam(model.parameters(), lr=rate, betas=(0.9, 0.98), eps=1e-9)

    def step(self, batch: Batch) -> float:
        """One update; the loss."""
        source_BS, input_BT, output_BT = (
            torch.from_numpy(ids).to(self.device)
            for ids in (batch.source_BS, batch.target_input_BT, batch.target_output_BT)
        )
        low = self.settings.precision != "float32"
        with torch.autocast(self.device.type, torch.bfloat16, enabled=low):
            logits_BTV = self.model(source_BS, input_BT)
        loss = F.cross_entropy(
            logits_BTV.flatten(0, 1).float(),
            output_BT.flatten(),
            ignore_index=PAD,
            label_smoothing=self.settings.label_smoothing,
        )
        self.optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(self.model.parameters(), self.settings.clip_norm or float("inf"))
        self.optimizer.step()
        return loss.item()
