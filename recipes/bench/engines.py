"""Engines side by side: each from lines to lines, with the same tokenizer around it. Imports as it goes:
a process has in memory what its engine needs, no more."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol, get_args

Ids = Sequence[int]


@dataclass(frozen=True)
class Spec:
    """What runs in a process. `batch` and `workers` are for the engines that are not ours."""

    engine: str  # nmt, ctranslate2, huggingface
    folder: str  # a model, or for ctranslate2 an export
    precision: str = "float32"
    beam_size: int = 5
    threads: int = 1
    batch: int = 32  # sentences
    workers: int = 1  # batches at once; the threads are dealt out among them
    # Finished hypotheses CTranslate2 waits for, in beams. With 2 its translations are nearly always ours.
    patience: float = 1.0
    device: str = "cpu"

    @property
    def name(self) -> str:
        names = {"nmt": "nmt", "ctranslate2": "CTranslate2", "huggingface": "Hugging Face"}
        patience = f", patience {self.patience:g}" if self.patience != 1 else ""
        return f"{names[self.engine]} {self.precision}{patience}"

    @property
    def settings(self) -> str:
        if self.device != "cpu":
            return self.device if self.engine == "nmt" else f"batches of {self.batch}, {self.device}"
        if self.engine == "nmt":
            return f"{self.threads} threads"
        return f"batches of {self.batch}, {self.workers} x {self.threads // self.workers} threads"

    def as_json(self) -> str:
        return json.dumps(asdict(self))


class Engine(Protocol):
    computes: str  # in which numbers

    def translate(self, lines: Sequence[str], batch: int) -> tuple[list[str], int]:
        """Translations, and how many tokens they have, the ends of sentences not counted.

        `batch` is the number of sentences of a batch, where the engine does not settle that itself.
        """


def load(spec: Spec) -> Engine:
    if spec.engine == "nmt":
        return Ours(spec)
    return CTranslate2(spec) if spec.engine == "ctranslate2" else HuggingFace(spec)


def our_precisions(device: str = "cpu") -> list[str]:
    """Those in which nmt translates on a device."""
    import torch

    from nmt.config import SearchConfig
    from nmt.models.fast import check_precision

    known = get_args(SearchConfig.model_fields["precision"].annotation)
    return [precision for precision in known if check_precision(precision, torch.device(device)) is None]


class Ours:
    """With the settings that CTranslate2 has too, and the batches that it has where nothing is asked for."""

    def __init__(self, spec: Spec):
        import torch

        from nmt.checkpoint import load_model
        from nmt.ctranslate2_engine import supported_search
        from nmt.device import choose_device
        from nmt.translator import Translator

        torch.set_num_threads(spec.threads)
        loaded = load_model(Path(spec.folder), choose_device(spec.device))
        settings = {"beam_size": spec.beam_size, "precision": spec.precision, "batch_tokens": "auto"}
        search = supported_search(loaded.config.search).model_copy(update=settings)
        self.translator = Translator.of(loaded, search)
        self.computes = spec.precision

    def translate(self, lines: Sequence[str], batch: int) -> tuple[list[str], int]:
        found = [translation.candidates[0] for translation in self.translator.translate(lines)]
        return [candidate.text for candidate in found], sum(len(candidate.tokens) for candidate in found)


class CTranslate2:
    """Called as its users call it: all sentences at once, sorted and batched by itself."""

    def __init__(self, spec: Spec):
        import ctranslate2

        from nmt.config_file import load_config
        from nmt.data.prepared import load_tokenizers

        folder = Path(spec.folder)
        self.spec = spec
        self.search = load_config(folder / "config.toml").search
        self.source, self.target = load_tokenizers(folder)
        self.pieces, self.id_of = _names(folder)
        self.engine = ctranslate2.Translator(
            spec.folder,
            device=spec.device,
            compute_type=spec.precision if spec.device != "cpu" else "default",
            inter_threads=spec.workers,
            intra_threads=max(1, spec.threads // spec.workers),
        )
        self.computes = str(self.engine.compute_type)

    def translate(self, lines: Sequence[str], batch: int) -> tuple[list[str], int]:
        sources = self.source.encode_all(lines)
        longest = self.search.most_tokens(max(map(len, sources)))
        options: dict[str, Any] = {}
        waits = self.spec.patience != 1 and self.spec.beam_size > 1
        if waits:
            options = dict(
                patience=self.spec.patience,
                num_hypotheses=round(self.spec.patience * self.spec.beam_size),
                return_scores=True,
            )
        found = self.engine.translate_batch(
            [[self.pieces[i] for i in ids] for ids in sources],
            beam_size=self.spec.beam_size,
            length_penalty=self.search.length_penalty,
            max_decoding_length=longest,
            max_input_length=0,
            max_batch_size=batch,
            **options,
        )
        best = [self._best(result) if waits else result.hypotheses[0] for result in found]
        return [self.target.decode([self.id_of[p] for p in pieces]) for pieces in best], sum(map(len, best))

    def _best(self, result: Any) -> list[str]:
        """By our score: it divides by |Y|^alpha, we by ((5 + |Y|) / 6)^alpha (Wu et al. 2016, eq. 14)."""
        alpha = self.search.length_penalty
        scores = [
            score * ((len(pieces) + 1) / ((6 + len(pieces)) / 6)) ** alpha
            for pieces, score in zip(result.hypotheses, result.scores, strict=True)
        ]
        best: list[str] = result.hypotheses[scores.index(max(scores))]
        return best


def _names(folder: Path) -> tuple[list[str], dict[str, int]]:
    """Of source ids, and the ids of target names, in the files that CTranslate2 reads."""
    shared = folder / "shared_vocabulary.json"
    source, target = (
        json.loads((shared if shared.exists() else folder / f"{side}_vocabulary.json").read_text("utf-8"))
        for side in ("source", "target")
    )
    return source, {piece: token_id for token_id, piece in enumerate(target)}


class HuggingFace:
    def __init__(self, spec: Spec):
        import torch

        from nmt.checkpoint import load_model

        from .huggingface import Generate, convert, longest_translation

        torch.set_num_threads(spec.threads)
        self.spec = spec
        loaded = load_model(Path(spec.folder))
        search = loaded.config.search.model_copy(update={"beam_size": spec.beam_size})
        self.source, self.target = loaded.source_tokenizer, loaded.target_tokenizer
        longest = longest_translation(search, search.max_source_tokens)
        settings: Any = loaded.config.model
        if settings.positions == "learned":
            longest = settings.max_positions
        theirs = convert(loaded.model, settings, max(longest, search.max_source_tokens) + 1)
        theirs = theirs.to(spec.device, getattr(torch, spec.precision))
        self.generate = Generate(theirs, search, word_level=self.target.word_level)
        self.computes = spec.precision

    def translate(self, lines: Sequence[str], batch: int) -> tuple[list[str], int]:
        found = self.generate.translate_ids(self.source.encode_all(lines), batch)
        return [self.target.decode(ids) for ids in found], sum(map(len, found))
