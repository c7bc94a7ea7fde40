"""Log-probabilities by CTranslate2, an inference engine in C++ that shares no code with torch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from nmt.ctranslate2_model import register, transformer_spec
from nmt.data.tokenizer import EOS
from nmt.models.transformer import Transformer

ctranslate2 = pytest.importorskip("ctranslate2", reason="needs ctranslate2, which is in the extra `dev`")

_SPECIAL = ["<pad>", "<unk>", "<s>", "</s>"]


class Converted:
    """Log-probabilities of given targets, by CTranslate2 with the weights of a Transformer."""

    def __init__(self, model: Transformer, folder: Path, **options: Any):
        """`options`: the keyword arguments of the model that are not seen from its weights."""
        size = model.embeddings.target.num_embeddings
        self.words = _SPECIAL + [f"word{i}" for i in range(len(_SPECIAL), size)]
        spec = transformer_spec(model, position_rows=64, **options)
        register(spec, self.words, self.words)
        spec.validate()
        spec.save(str(folder))
        self.translator = ctranslate2.Translator(
            str(folder), device="cpu", compute_type="float32", inter_threads=1, intra_threads=1
        )

    def score(self, source: list[int], target: list[int]) -> torch.Tensor:
        """Of each target token and of the end of sentence: (T + 1,). The source has its end."""
        assert source[-1] == EOS  # which the export adds
        (result,) = self.translator.score_batch(
            [[self.words[i] for i in source[:-1]]], [[self.words[i] for i in target]]
        )
        return torch.tensor(result.log_probs)
