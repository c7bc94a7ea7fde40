"""What a model adds to the evaluation of its translation: which model it is, its perplexity, its search."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from nmt import __version__, resampling
from nmt.checkpoint import LoadedModel, model_hash
from nmt.config import SearchConfig
from nmt.config_file import changed_search, load_config
from nmt.data.corpus import find_side, is_tsv, read_lines, read_parallel
from nmt.errors import UserError
from nmt.evaluation import Score, perplexity
from nmt.forced import fitting, log_probabilities
from nmt.gold import Gold, agreement_of
from nmt.models import parameter_counts
from nmt.resampling import Numbers, interval, resampled
from nmt.results import of_model
from nmt.text_alignment import Alignment
from nmt.translator import Translator

# How signatures call what is chosen of [search]. How lines are batched changes no translation.
_SEARCH = {"beam_size": "beam", "length_penalty": "penalty", "tag": "tag", "precision": "precision"}


@dataclass(frozen=True)
class ModelUnderTest:
    """A model, or several that translate together, and how they search.

    Args:
        chosen: keys of [search] that differ from the model's own, as far as given.
        ensemble: further models, to average with.
    """

    loaded: LoadedModel
    chosen: Mapping[str, Any]
    ensemble: Sequence[LoadedModel] = ()

    @property
    def identity(self) -> str:
        """What a signature ends with: the hashes of the models."""
        return self._identity()

    def _identity(self, chosen: str = "") -> str:
        models = [self.loaded, *self.ensemble]
        return of_model(*(model_hash(one.manifest) for one in models), chosen=chosen)

    @cached_property
    def search(self) -> SearchConfig:
        """UserError where what is chosen does not go together."""
        return changed_search(self.loaded.config.search, self.chosen)

    @cached_property
    def reading(self) -> LoadedModel:
        """The model, which reads a source as search does: with its tag."""
        config = self.loaded.config
        search = config.search.model_copy(update={"tag": self.search.tag})
        return replace(self.loaded, config=config.model_copy(update={"search": search}))

    @property
    def search_signature(self) -> str:
        """How the search differs from the model's own, which is part of the model: rows of another are
        others."""
        return self._differing(*_SEARCH) + self._together

    def _differing(self, *keys: str) -> str:
        own = self.loaded.config.search
        changed = [key for key in keys if getattr(self.search, key) != getattr(own, key)]
        return "".join(f"|{_SEARCH[key]}:{getattr(self.search, key) or 'none'}" for key in changed)

    @property
    def _together(self) -> str:
        if not self.ensemble:
            return ""
        return f"|models:{1 + len(self.ensemble)}|mean:{self.search.ensemble_by}"

    def about(self) -> dict[str, Any]:
        """What a row of results says of the models: sums, of several."""
        models = [self.loaded, *self.ensemble]
        seconds = [one.manifest.get("train_seconds") for one in models]
        return {
            "parameters": sum(parameter_counts(one.model)["total"] for one in models),
            "train_seconds": None if None in seconds else sum(seconds),
            "device": str(next(self.loaded.model.parameters()).device),
        }

    @cached_property
    def translator(self) -> Translator:
        """UserError where the models cannot translate together as is wanted."""
        return Translator.of(self.loaded, self.search, ensemble=self.ensemble)

    def translate(self, sources: Sequence[str], look: Callable[[], None] = lambda: None) -> list[str]:
        """
        Args:
            look: called with each translation that is found.
        """
        translator = self.translator
        translator.look = look
        return [translation.text for translation in translator.translate(sources)]

    def perplexity(
        self, sources: Sequence[str], targets: Sequence[str], *, confidence: bool
    ) -> tuple[Score | None, int]:
        """Of the reference, and how many pairs were left out because they are too long for the model; no
        score where all are."""
        models = [self.reading, *self.ensemble]
        written = models[0].target_tokenizer.encode_all(list(targets))
        read = [one.source_tokenizer.encode_all(list(sources)) for one in models]
        fits = [fitting(one, ids, written) for one, ids in zip(models, read, strict=True)]
        kept = [place for place in range(len(written)) if all(of_model[place] for of_model in fits)]
        left_out = len(written) - len(kept)
        if not kept:
            return None, left_out
        found = log_probabilities(
            models,
            [read[0][place] for place in kept],
            [written[place] for place in kept],
            by=self.search.ensemble_by,
        )
        counts = np.array([(-float(values.sum(dtype=np.float64)), len(values)) for values in found])
        nats, tokens = counts.sum(axis=0)
        first = self.loaded
        about = f"tokens:{first.config.tokenizer.type}|vocabulary:{len(first.target_tokenizer)}"
        about += f"|left-out:{left_out}" if left_out else ""
        about += self._differing("tag") + self._together
        return self._score(
            "perplexity", perplexity(nats / tokens), about, counts, _perplexities, confidence
        ), left_out

    def error_rate(self, found: Alignment, gold: Sequence[Gold], words: str, *, confidence: bool) -> Score:
        """AER of links read off the model's attention."""
        agreement = agreement_of(found.links, gold)
        view = found.view
        seen = f"layer:{view.layer or 'mean'}|head:{view.head or 'mean'}" + (
            "|shift:yes" if view.shift else ""
        )
        chosen = ""
        if len(found.ranking) > 1:  # of so many views this one agrees best with the links it is measured by
            seen, chosen = f"view:best-of-{len(found.ranking)}-by-gold", seen
        about = f"words:{words}|{seen}|links:argmax{self._differing('tag')}"
        counts = [
            agreement_of([links], [right]).counts for links, right in zip(found.links, gold, strict=True)
        ]
        return self._score("AER", agreement.aer, about, counts, _error_rates, confidence, chosen)

    def _score(
        self,
        metric: str,
        value: float,
        about: str,
        counts: Sequence[Any] | Numbers,
        scores: Callable[[Numbers], Numbers],
        confidence: bool,
        chosen: str = "",
    ) -> Score:
        """With an interval by resampling, if asked for."""
        identity = self._identity(chosen)
        about += f"|nmt:{__version__}"
        if not confidence:
            return Score(metric, value, about + identity)
        signature = f"{about}|{resampling.signature()}{identity}"
        return Score(metric, value, signature, *interval(resampled(counts, scores)))


def _perplexities(counts: Numbers) -> Numbers:
    """(samples, [nats, tokens]) -> (samples,)."""
    found: Numbers = np.exp(np.minimum(counts[:, 0] / counts[:, 1], 700.0))
    return found


def _error_rates(counts: Numbers) -> Numbers:
    """(samples, `Agreement.counts`) -> (samples,)."""
    both = counts[:, 0] + counts[:, 1]
    found: Numbers = np.where(both > 0, 1 - (counts[:, 2] + counts[:, 3]) / np.maximum(both, 1), 0.0)
    return found


def training_lines(path: Path) -> Iterator[str]:
    """The target side of training text: a file of it, or a run or model folder, whose configuration names it.

    Raises:
        UserError: the file cannot be read, the folder is no run, or what it was trained on is not there.
    """
    if not path.is_dir():
        yield from read_lines(path)
        return
    config = next((file for file in (path / "config.toml", path / "best/config.toml") if file.exists()), None)
    if config is None:
        raise UserError("holds no config.toml; name a file of training text, or a run folder", file=path)
    data = load_config(config).data
    for prefix in data.train_prefixes:
        if is_tsv(prefix):
            yield from (
                target for _, target in read_parallel(prefix, data.source_language, data.target_language)
            )
        else:
            yield from read_lines(find_side(prefix, data.target_language))
