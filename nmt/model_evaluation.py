"""What a model adds to the evaluation of its translation: which model it is, its perplexity, its search."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from nmt import __version__, resampling
from nmt.checkpoint import MANIFEST, LoadedModel
from nmt.config_file import changed_search, load_config
from nmt.data.corpus import find_side, is_tsv, read_lines, read_parallel, sha256_of
from nmt.errors import UserError
from nmt.evaluation import Score, perplexity
from nmt.forced import fitting, log_probabilities
from nmt.gold import Gold, agreement_of
from nmt.models import parameter_counts
from nmt.resampling import Numbers, interval, resampled
from nmt.results import of_model
from nmt.text_alignment import Alignment
from nmt.translator import Translator


@dataclass(frozen=True)
class ModelUnderTest:
    """A model and how it searches.

    Args:
        chosen: keys of [search] that differ from the model's own, as far as given.
    """

    loaded: LoadedModel
    chosen: Mapping[str, float]

    @property
    def identity(self) -> str:
        """What a signature ends with: the model's hash."""
        return of_model(sha256_of(self.loaded.folder / MANIFEST))

    @property
    def search_signature(self) -> str:
        """How the search differs from the model's own, which is part of the model: rows of another are
        others."""
        configured = self.loaded.config.search.model_dump()
        names = {"beam_size": "beam", "length_penalty": "penalty"}
        return "".join(
            f"|{names[key]}:{value}" for key, value in self.chosen.items() if value != configured[key]
        )

    def about(self) -> dict[str, Any]:
        """What a row of results says of the model."""
        return {
            "parameters": parameter_counts(self.loaded.model)["total"],
            "train_seconds": self.loaded.manifest.get("train_seconds"),
            "device": str(next(self.loaded.model.parameters()).device),
        }

    def translate(self, sources: Sequence[str]) -> list[str]:
        search = changed_search(self.loaded.config.search, self.chosen)
        return [t.text for t in Translator.of(self.loaded, search).translate(list(sources))]

    def perplexity(
        self, sources: Sequence[str], targets: Sequence[str], *, confidence: bool
    ) -> tuple[Score | None, int]:
        """Of the reference, and how many pairs were left out because they are too long for the model; no
        score where all are."""
        loaded = self.loaded
        encoded = [
            loaded.source_tokenizer.encode_all(list(sources)),
            loaded.target_tokenizer.encode_all(list(targets)),
        ]
        fits = fitting(loaded, *encoded)
        kept = [[ids for ids, does in zip(side, fits, strict=True) if does] for side in encoded]
        left_out = fits.count(False)
        if not kept[0]:
            return None, left_out
        found = log_probabilities([loaded], *kept)
        counts = np.array([(-float(values.sum(dtype=np.float64)), len(values)) for values in found])
        nats, tokens = counts.sum(axis=0)
        about = f"tokens:{loaded.config.tokenizer.type}|vocabulary:{len(loaded.target_tokenizer)}"
        about += f"|left-out:{left_out}" if left_out else ""
        return self._score(
            "perplexity", perplexity(nats / tokens), about, counts, _perplexities, confidence
        ), left_out

    def error_rate(self, found: Alignment, gold: Sequence[Gold], words: str, *, confidence: bool) -> Score:
        """AER of links read off the model's attention."""
        agreement = agreement_of(found.links, gold)
        view = found.view
        about = f"words:{words}|layer:{view.layer or 'mean'}|head:{view.head or 'mean'}"
        about += "|shift:yes" if view.shift else ""
        counts = [
            agreement_of([links], [right]).counts for links, right in zip(found.links, gold, strict=True)
        ]
        return self._score("AER", agreement.aer, f"{about}|links:argmax", counts, _error_rates, confidence)

    def _score(
        self,
        metric: str,
        value: float,
        about: str,
        counts: Sequence[Any] | Numbers,
        scores: Callable[[Numbers], Numbers],
        confidence: bool,
    ) -> Score:
        """With an interval by resampling, if asked for."""
        about += f"|nmt:{__version__}"
        if not confidence:
            return Score(metric, value, about + self.identity)
        signature = f"{about}|{resampling.signature()}{self.identity}"
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
