"""The validation set during training: whether it fits the model, its loss, the BLEU of its translation."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch

from nmt.config import Config
from nmt.data.batches import Batch
from nmt.data.prepare import Pairs, TrainingData, corpus_files
from nmt.data.tokenizer import PAD
from nmt.errors import UserError
from nmt.evaluation import bleu, perplexity
from nmt.examples import Examples
from nmt.translator import Translator


class Validation:
    """A validation set as text and as batches."""

    def __init__(self, config: Config, pairs: Pairs, data: TrainingData):
        self.config = config
        self.pairs = pairs
        self.data = data
        self.examples = Examples.of_pairs(pairs, data)

    def check_fits(self, model: Any) -> None:
        """UserError for a sentence that the model has no positions for; training pairs have been dropped."""
        files = corpus_files(self.config.data, [self.config.data.validation])
        sides = (
            (self.examples.source, model.most_source_tokens, files[0]),
            (self.examples.target, model.most_target_tokens, files[-1]),
        )
        for sentences, most, file in sides:
            for index in range(len(sentences)):
                count = len(sentences[index])
                if most is not None and count + 1 > most:
                    raise UserError(
                        f"has {count:,} tokens, and model.max_positions = {most} has room for "
                        f"{most - 1:,} and their end; shorten the line or raise model.max_positions",
                        file=file,
                        line=index + 1,
                    )

    def scores(self, model: Any, loss_of: Callable[[Batch], float]) -> dict[str, float]:
        """ "loss" in nats a target token, "perplexity" and "bleu" of a model in evaluation mode.

        A loss that is not finite comes back alone.

        Args:
            loss_of: the loss of a batch without smoothing, summed over its target tokens.
        """
        total, tokens = 0.0, 0
        with torch.inference_mode():
            for batch in self.examples.batches():
                total += loss_of(batch)
                tokens += int((batch.target_output_BT != PAD).sum())
        loss = total / tokens
        if not math.isfinite(loss):
            return {"loss": loss}
        beam_size = self.config.training.validation_beam_size
        search = self.config.search.model_copy(update={"beam_size": beam_size, "beam_groups": 1})
        translator = Translator(model, self.data.source_tokenizer, self.data.target_tokenizer, search)
        hypotheses = [t.text for t in translator.translate([source for source, _ in self.pairs])]
        return {
            "loss": loss,
            "perplexity": perplexity(loss),
            "bleu": bleu(hypotheses, [target for _, target in self.pairs]),
        }
