"""The validation set during training: whether it fits the model, its loss, the BLEU of its translation."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Sequence
from typing import TypeVar

import torch

from nmt.config import Config
from nmt.data.batches import Batch
from nmt.data.corpus import Pairs
from nmt.data.prepare import corpus_files
from nmt.data.prepared import TrainingData
from nmt.data.tokenizer import PAD
from nmt.ensemble import tagging
from nmt.errors import UserError
from nmt.evaluation import bleu, bleu_signature, perplexity
from nmt.examples import Examples
from nmt.interrupt import Stopped
from nmt.models.seam import Model
from nmt.ranks import ALONE, Ranks
from nmt.translator import Translator

T = TypeVar("T")


class Validation:
    """A validation set as text and as batches."""

    def __init__(self, config: Config, pairs: Pairs, data: TrainingData):
        self.config = config
        self.pairs = pairs
        self.data = data
        # UserError for a tag that is not known.
        self.examples = Examples.of_pairs(pairs, data, tagging(data.source_tokenizer, config.search.tag))

    @property
    def about(self) -> dict[str, str | int]:
        """What its scores are of, for manifests."""
        return {
            "lines": len(self.pairs),
            "beam_size": self.config.training.validation_beam_size,
            "bleu": bleu_signature(self.config.data.target_language),
        }

    def check_fits(self, model: Model) -> None:
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

    def scores(
        self,
        model: Model,
        loss_of: Callable[[Batch], float],
        ranks: Ranks = ALONE,
        signal: Callable[[], int | None] = lambda: None,
    ) -> dict[str, float]:
        """ "loss" in nats a target token, "perplexity" and "bleu" of a model in evaluation mode.

        A loss that is not finite comes back alone. Several processes share the work, and all get the
        scores that one process would.

        Args:
            loss_of: the loss of a batch without smoothing, summed over its target tokens.
            signal: asked between batches; the number of a signal that this process got.

        Raises:
            Stopped: one of the processes got a signal; in all of them, with that of the first.
        """

        def look() -> None:
            number = signal()
            if number is not None:
                raise Stopped(number)

        def together(work: Callable[[], list[T]]) -> list[T]:
            """What all processes find. One that got a signal leaves its work; the others hear of it here."""
            found: list[T] = []
            with contextlib.suppress(Stopped):
                found = work()
            told = ranks.gather_objects((found, signal()))
            for _, number in told:
                if number is not None:
                    raise Stopped(number)
            return _dealt([share for share, _ in told])

        share = slice(ranks.rank, None, ranks.size)

        def measure() -> list[tuple[float, int]]:
            found = []
            with torch.inference_mode():
                for batch in map(self.examples.batch, self.examples.plan[share]):
                    look()
                    found.append((loss_of(batch), int((batch.target_output_BT != PAD).sum())))
            return found

        losses = together(measure)
        loss = sum(loss for loss, _ in losses) / sum(tokens for _, tokens in losses)
        if not math.isfinite(loss):
            return {"loss": loss}
        beam_size = self.config.training.validation_beam_size
        # In the precision of the weights: what is meant for another device may not run here.
        own = {"beam_size": beam_size, "beam_groups": 1, "precision": "float32"}
        search = self.config.search.model_copy(update=own)
        tokenizers = self.data.source_tokenizer, self.data.target_tokenizer
        translator = Translator(model, *tokenizers, search, look=look)
        mine = [source for source, _ in self.pairs[share]]
        hypotheses = together(lambda: [found.text for found in translator.translate(mine)])
        return {
            "loss": loss,
            "perplexity": perplexity(loss),
            "bleu": bleu(hypotheses, [target for _, target in self.pairs], self.config.data.target_language),
        }


def _dealt(shares: Sequence[Sequence[T]]) -> list[T]:
    """Every R-th from each of R shares, as they were before they were dealt out."""
    ranks = len(shares)
    return [shares[i % ranks][i // ranks] for i in range(sum(map(len, shares)))]
