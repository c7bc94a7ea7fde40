"""Translations for reports, kept in the run's folder so that the next report need not translate again."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from nmt import __version__
from nmt.checkpoint import LoadedModel
from nmt.files import write_file
from nmt.translator import CHUNK_LINES, Translator

FOLDER = "report"  # in a run's folder
FORMAT = 1


@dataclass(frozen=True)
class Translated:
    """A text's translation and what it took."""

    texts: list[str]
    tokens: list[list[str]]  # as search chose them
    parts: list[int]  # in how many parts each line was translated
    seconds: float
    device: str
    threads: int
    reused: bool  # it was kept from an earlier report


def sum_of(lines: Sequence[str]) -> str:
    """sha256 of lines."""
    return hashlib.sha256("".join(f"{line}\n" for line in lines).encode()).hexdigest()


def translate(
    loaded: LoadedModel,
    run_folder: Path,
    model_hash: str,
    sources: Sequence[str],
    *,
    tell: Callable[[int], None] = lambda _: None,
    warn: Callable[[str], None] = lambda _: None,
) -> Translated:
    """Translate with the search that the model's configuration names, or read what was kept.

    Args:
        tell: called with the number of lines done.
        warn: called where the translation cannot be kept; it is made nevertheless.
    """
    source_sum = sum_of(sources)
    file = run_folder / FOLDER / f"translation-{model_hash[:16]}-{source_sum[:16]}.json"
    key = {"format": FORMAT, "nmt": __version__, "model": model_hash, "source": source_sum}
    kept = _read(file, key, len(sources))
    if kept is not None:
        return kept
    began = time.perf_counter()
    translator = Translator.of(loaded)
    texts: list[str] = []
    tokens: list[list[str]] = []
    parts: list[int] = []
    for first in range(0, len(sources), CHUNK_LINES):
        for found in translator.translate_all(sources[first : first + CHUNK_LINES]):
            texts.append(found.text)
            tokens.append(list(found.candidates[0].tokens))
            parts.append(found.parts)
        tell(len(texts))
    values: dict[str, Any] = {
        "texts": texts,
        "tokens": tokens,
        "parts": parts,
        "seconds": round(time.perf_counter() - began, 3),
        "device": str(translator.device),
        "threads": torch.get_num_threads(),
    }
    try:
        write_file(file, json.dumps(key | values, ensure_ascii=False) + "\n")
    except OSError as error:
        warn(
            f"{error.filename or file}: {error.strerror or error}; the translation is not kept for the next "
            "report"
        )
    return Translated(**values, reused=False)


def _read(file: Path, key: dict[str, Any], lines: int) -> Translated | None:
    """What was kept, if it is what is wanted and whole."""
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
        values = {name: found[name] for name in ("texts", "tokens", "parts", "seconds", "device", "threads")}
        is_it = all(found[name] == value for name, value in key.items())
        texts, tokens, parts = values["texts"], values["tokens"], values["parts"]
        whole = len(texts) == len(tokens) == len(parts) == lines
        whole = whole and all(isinstance(text, str) and "\n" not in text for text in texts)
        whole = whole and all(isinstance(token, str) for of_line in tokens for token in of_line)
        whole = whole and all(isinstance(count, int) for count in parts)
        whole = whole and isinstance(values["seconds"], int | float)
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None
    return Translated(**values, reused=True) if is_it and whole else None
