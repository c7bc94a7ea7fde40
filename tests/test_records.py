"""Records of translations: word links and attention are those of the tokens that were translated."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support import Nmt

from nmt.alignment import Aligner, pharaoh
from nmt.checkpoint import LoadedModel, load_model
from nmt.data.tokenizer import EOS
from nmt.forced import attention
from nmt.records import Records
from nmt.translations import Candidate, Translation
from nmt.translator import Translator

RUN = "runs/tiny"
LINES = ["The dog sees the old house.", "", " \u2028 ", "A cat.", "😀 漢字 \0", "word " * 5, "x"]


@pytest.fixture(scope="module")
def loaded(tiny_run: Path) -> LoadedModel:
    return load_model(tiny_run / RUN)


def written(loaded: LoadedModel, lines: list[str], translations: list[Translation]) -> list[dict[str, Any]]:
    records = Records(loaded, json_lines=True, alignment=True, attention=True)
    return [json.loads(record) for record in records.write(5, lines, translations)]


def translation_of(loaded: LoadedModel, source: str, target: str) -> Translation:
    """As if the model had translated so."""
    tokens = loaded.target_tokenizer.pieces(loaded.target_tokenizer.encode(target))
    length = len(loaded.source_tokenizer.encode(source)), len(tokens)
    return Translation((Candidate(target, 0.0, 0.0, tuple(tokens), (length,)),))


def test_links_are_those_that_nmt_align_reads_off(loaded: LoadedModel) -> None:
    targets = ["Der Hund sieht das Haus.", "eine Katze .", "Ein Wort", "שלום 😀 x", "."]
    pairs = [(source, target) for source in LINES if source.strip() for target in targets]
    records = written(loaded, [s for s, _ in pairs], [translation_of(loaded, s, t) for s, t in pairs])
    expected = [pharaoh(found[0]) for found in Aligner(loaded).align(pairs) if found is not None]
    assert [record["translations"][0]["alignment"] for record in records] == expected
    assert len(set(expected)) > 5
    assert [record["line"] for record in records] == list(range(5, 5 + len(pairs)))


def test_attention_is_a_row_a_token_over_the_source_and_its_end(loaded: LoadedModel) -> None:
    search = loaded.config.search.model_copy(update={"beam_size": 3})
    translations = Translator.of(loaded, search, n_best=3).translate_all(LINES)
    for line, record in zip(LINES, written(loaded, LINES, translations), strict=True):
        source_ids = loaded.source_tokenizer.encode(line)
        assert record["source"] == line
        assert record["source_tokens"] == loaded.source_tokenizer.pieces([*source_ids, EOS])
        assert len(record["translations"]) == (3 if line.strip() else 1)
        for candidate in record["translations"]:
            assert "parts" not in candidate
            if not line.strip():
                assert (candidate["alignment"], candidate["attention"]) == ("", [])
                continue
            target_ids = [loaded.target_tokenizer.id_of(piece) for piece in candidate["tokens"]]
            ((_, weights),) = attention(loaded, [source_ids], [target_ids])
            rows = np.array(candidate["attention"]).reshape(len(target_ids), len(source_ids) + 1)
            np.testing.assert_allclose(rows, weights.mean(axis=(0, 1))[:-1], atol=6e-5)
            assert all(len(repr(number)) <= 6 for row in candidate["attention"] for number in row)


def test_bytes_that_spell_no_character_leave_no_links(loaded: LoadedModel) -> None:
    """The decoder writes U+FFFD for them, and the text is no longer what the tokens spell."""
    tokens = ("▁Hund", "<0xC3>", "▁Haus")
    text = loaded.target_tokenizer.decode([loaded.target_tokenizer.id_of(piece) for piece in tokens])
    assert "\ufffd" in text
    (record,) = written(loaded, ["A dog."], [Translation((Candidate(text, 0.0, 0.0, tokens, ((3, 3),)),))])
    assert record["translations"][0]["alignment"] is None
    assert len(record["translations"][0]["attention"]) == 3


def test_no_tokens_at_all(loaded: LoadedModel) -> None:
    source = loaded.source_tokenizer.encode("A dog.")
    empty = Translation((Candidate("", 0.0, 0.0, (), ((len(source), 0),)),))
    (record,) = written(loaded, ["A dog."], [empty])
    assert record["translations"][0]["alignment"] == ""
    assert record["translations"][0]["attention"] == []


def test_split_lines_have_parts_and_neither_links_nor_attention(loaded: LoadedModel) -> None:
    line = "The dog sees it. " * 60
    (translation,) = Translator.of(loaded, n_best=2).translate_all([line])
    (record,) = written(loaded, [line], [translation])
    for candidate in record["translations"]:
        assert candidate["alignment"] is None
        assert candidate["attention"] is None
        sources, targets = zip(*candidate["parts"], strict=True)
        assert len(sources) > 1
        assert sum(sources) == len(loaded.source_tokenizer.encode(line))
        assert sum(targets) == len(candidate["tokens"])


def test_a_model_without_attention_is_refused(tiny_run: Path, tmp_path: Path) -> None:
    nmt = Nmt(tmp_path)
    (tmp_path / "corpus").symlink_to(tiny_run / "corpus")
    text = (tiny_run / "tiny.toml").read_text()
    before, _, after = text.partition("[model]\n")
    model = (
        '[model]\narchitecture = "recurrent"\nlayers = 1\nhidden_width = 8\nembedding_width = 8\n'
        'tie_embeddings = "target"\n'
    )
    after = after[after.index("[training]") :].replace("max_steps = 12", "max_steps = 1")
    (tmp_path / "r.toml").write_text(before + model + after)
    nmt("train", "r.toml")
    for option in ("--alignment", "--attention"):
        message = nmt.error("translate", "runs/r", option, "--format", "jsonl", stdin=b"a\n")
        assert "has no attention over the source" in message
    assert nmt("translate", "runs/r", "--format", "jsonl", stdin=b"a\n").lines
