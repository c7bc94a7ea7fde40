"""Exported models translate as ours: every Transformer there is, in CTranslate2."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import pytest
from exported import random_model, random_sources, tokenizer

from nmt.checkpoint import MANIFEST, LoadedModel, read_manifest
from nmt.config import QUANTIZATIONS, SearchConfig
from nmt.config_file import dump_config, parse_config
from nmt.ctranslate2_engine import Engine, is_export, load_engine
from nmt.ctranslate2_model import require_ctranslate2, unsupported, vocabulary, write_export
from nmt.data.tokenizer import BOS, EOS, PAD, UNK
from nmt.errors import UserError
from nmt.export import TIE, ExportFailed, _gaps, _token_log_probabilities, compare, export
from nmt.search import length_penalty
from nmt.translator import Translator

ctranslate2 = pytest.importorskip("ctranslate2", reason="needs ctranslate2, which is in the extra `dev`")

CHOICES = [
    ["pre", "post"],
    ["layernorm", "rmsnorm"],
    ["relu", "gelu", "swiglu"],
    ["sinusoidal", "learned", "relative", "rotary"],
]
VARIANTS = list(itertools.product(*CHOICES))
SHAPES: dict[str, dict[str, Any]] = {
    "heads of one": dict(width=6, heads=6),
    "heads of three": dict(width=12, heads=4, positions="relative"),
    "odd width": dict(width=15, heads=5, positions="learned"),
    "rotary pairs": dict(width=6, heads=3, positions="rotary"),
    "one layer, three": dict(encoder_layers=1, decoder_layers=3),
    "odd inner widths": dict(feed_forward_width=7, decoder_feed_forward_width=1, activation="swiglu"),
    "untied": dict(tie_embeddings="none"),
    "long distances": dict(positions="relative", relative_distance=60),
}


def searching(loaded: LoadedModel, **keys: Any) -> SearchConfig:
    return loaded.config.search.model_copy(update=keys)


def check_variant(folder: Path, count: int, **options: Any) -> None:
    """Greedy and beam search of both engines; separate and shared vocabularies by turns."""
    shared = options["norm"] == "pre" or options.get("tie_embeddings") == "all"
    source, target = tokenizer(), tokenizer() if shared else tokenizer("bpe", 310)
    loaded = random_model(folder / "model", source, target, **options)
    exported = folder / "exported"
    exported.mkdir()
    write_export(loaded, exported)
    sources = random_sources(count, len(source))
    for keys in ({"beam_size": 1}, {"beam_size": 3, "length_penalty": 0.0}, {"beam_size": 3}):
        search = searching(loaded, **keys)
        ours = [found[0] for found in Translator.of(loaded, search).translate_ids(sources)]
        theirs = [found[0] for found in Engine(exported, search, threads=1).translate_ids(sources)]
        pairs = [(a.tokens, b.tokens) for a, b in zip(ours, theirs, strict=True)]
        different = [i for i, (a, b) in enumerate(pairs) if a != b]
        if search.beam_size == 1:
            gaps = _gaps(loaded, [sources[i] for i in different], [pairs[i] for i in different])
            assert max(gaps, default=0.0) <= TIE
            assert len(gaps) <= count // 50
        elif search.length_penalty == 0:
            assert len(different) <= count // 20
        rows = _token_log_probabilities(loaded, sources, [other.tokens for other in theirs])
        for row, other in zip(rows, theirs, strict=True):
            assert other.log_probability == pytest.approx(sum(row), abs=1e-3)
            penalty = length_penalty(len(other.tokens) + 1, search.length_penalty)
            assert other.score == pytest.approx(other.log_probability / penalty)


# A quarter of them, with nearly every choice of any two; all are in the slow test.
SOME = [v for v in VARIANTS if sum(c.index(o) for c, o in zip(CHOICES, v, strict=True)) % 4 == 0]


@pytest.mark.parametrize("variant", SOME, ids="-".join)
def test_every_variant(variant: tuple[str, ...], tmp_path: Path) -> None:
    options = dict(zip(("norm", "norm_type", "activation", "positions"), variant, strict=True))
    check_variant(tmp_path, 10, **options)


@pytest.mark.slow
@pytest.mark.parametrize("variant", VARIANTS, ids="-".join)
def test_every_variant_on_500_sentences(variant: tuple[str, ...], tmp_path: Path) -> None:
    options = dict(zip(("norm", "norm_type", "activation", "positions"), variant, strict=True))
    check_variant(tmp_path, 500, **options)


@pytest.mark.parametrize("norm", ["pre", pytest.param("post", marks=pytest.mark.slow)])
@pytest.mark.parametrize("shape", SHAPES)
def test_every_shape(shape: str, norm: str, tmp_path: Path) -> None:
    check_variant(tmp_path, 10, norm=norm, **SHAPES[shape])


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> LoadedModel:
    return random_model(tmp_path_factory.mktemp("export") / "model", tokenizer(), tokenizer())


def test_ctranslate2_alone_gives_our_translation(model: LoadedModel, tmp_path: Path) -> None:
    """Pieces as SentencePiece writes them in, pieces out: no special token, no option of ours."""
    write_export(model, tmp_path)
    lines = ["abc de", "jihg fedc ba", "ö ✓ unseen"]  # the last in bytes
    ids = model.source_tokenizer.encode_all(lines)
    plain = ctranslate2.Translator(str(tmp_path), intra_threads=1).translate_batch(
        [model.source_tokenizer.pieces(row) for row in ids], beam_size=1, max_decoding_length=8
    )
    search = searching(model, beam_size=1, max_length_factor=0.001, max_length_offset=9)
    ours = Translator.of(model, search).translate_ids(ids)
    assert [result.hypotheses[0] for result in plain] == [
        model.target_tokenizer.pieces(found[0].tokens) for found in ours
    ]
    settings = json.loads((tmp_path / "config.json").read_text())
    assert settings["decoder_start_token"] == settings["bos_token"] == "<s>"
    assert (settings["eos_token"], settings["unk_token"]) == ("</s>", "<unk>")
    assert settings["add_source_eos"] is True
    assert settings["add_source_bos"] is False


@pytest.mark.parametrize("kind", ["word", "char", "unigram"])
def test_other_tokenizers(kind: str, tmp_path: Path) -> None:
    """Words outside the vocabulary are <unk>, which the word type may also write."""
    made = tokenizer(kind, {"word": 50, "char": 300, "unigram": 290}[kind])
    loaded = random_model(tmp_path / "model", made, made)
    sources = random_sources(60, len(made))
    search = searching(loaded, beam_size=1)
    _, engine = load_engine(loaded.folder, search, threads=1)
    ours = Translator.of(loaded, search).translate_ids(sources)
    theirs = engine.translate_ids(sources)
    assert [found[0].tokens for found in theirs] == [found[0].tokens for found in ours]
    allowed = {PAD, BOS, EOS} if kind == "word" else {PAD, BOS, EOS, UNK}
    assert not any(allowed & set(found[0].tokens) for found in theirs)


def test_special_tokens_are_never_written(tmp_path: Path) -> None:
    """Not even by a model that would write little else."""
    import torch

    loaded = random_model(tmp_path / "model", tokenizer(), tokenizer())
    with torch.no_grad():
        loaded.model.embeddings.output.weight[[PAD, UNK, BOS]] *= 40
    exported = tmp_path / "exported"
    exported.mkdir()
    write_export(loaded, exported)
    sources = random_sources(30, 300)
    for beam_size in (1, 3):
        search = searching(loaded, beam_size=beam_size)
        theirs = Engine(exported, search, threads=1).translate_ids(sources)
        assert not any({PAD, UNK, BOS, EOS} & set(found[0].tokens) for found in theirs)
        rows = _token_log_probabilities(loaded, sources, [found[0].tokens for found in theirs])
        for row, found in zip(rows, theirs, strict=True):
            assert found[0].log_probability == pytest.approx(sum(row), abs=1e-2)
        if beam_size == 1:
            ours = Translator.of(loaded, search).translate_ids(sources)
            assert [found[0].tokens for found in theirs] == [found[0].tokens for found in ours]


@pytest.mark.parametrize("penalty", [0.0, 1.0])
def test_n_best(model: LoadedModel, penalty: float) -> None:
    search = searching(model, beam_size=4, length_penalty=penalty)
    _, engine = load_engine(model.folder, search, n_best=3, threads=1)
    for found in engine.translate_ids(random_sources(20, 300)):
        assert len({hypothesis.tokens for hypothesis in found}) == 3
        scores = [hypothesis.score for hypothesis in found]
        assert scores == sorted(scores, reverse=True)
    with pytest.raises(ValueError, match="n_best"):
        load_engine(model.folder, search, n_best=5)


def test_limits_of_length(model: LoadedModel) -> None:
    """Each sentence has its own, down to one: the end alone."""
    sources = random_sources(20, 300)
    for factor, offset in ((0.001, 1), (0.001, 2), (0.5, 1)):
        search = searching(model, beam_size=1, max_length_factor=factor, max_length_offset=offset)
        _, engine = load_engine(model.folder, search, threads=1)
        theirs = engine.translate_ids(sources)
        ours = Translator.of(model, search).translate_ids(sources)
        assert [found[0].tokens for found in theirs] == [found[0].tokens for found in ours]
        for one, other in zip(ours, theirs, strict=True):
            assert one[0].log_probability == pytest.approx(other[0].log_probability, abs=1e-3)
    assert engine.translate_ids([]) == []
    with pytest.raises(ValueError, match="more than 30"):
        engine.translate_ids([[5] * 31])


def test_a_translation_does_not_depend_on_its_batch(model: LoadedModel) -> None:
    sources = random_sources(40, 300)
    _, engine = load_engine(model.folder, threads=1)
    together = engine.translate_ids(sources)
    alone = [engine.translate_ids([source])[0] for source in sources]
    assert [found[0].tokens for found in together] == [found[0].tokens for found in alone]


def test_what_ctranslate2_cannot_run() -> None:
    data = '[data]\ntrain = "a"\nvalidation = "b"\nsource_language = "en"\ntarget_language = "de"\n'
    for architecture in ("recurrent", "bahdanau", "luong"):
        config = parse_config(data + f'[model]\narchitecture = "{architecture}"\n')
        (reason,) = unsupported(config.model)
        assert f'model.architecture = "{architecture}"' in reason
    for preset in ("tiny", "small", "base", "big", "vaswani2017"):
        assert unsupported(parse_config(data + f'[model]\npreset = "{preset}"\n').model) == []


def test_quantizations(model: LoadedModel, tmp_path: Path) -> None:
    sources = random_sources(30, 300)
    sizes = {}
    before = {name: tensor.clone() for name, tensor in model.model.state_dict().items()}
    for quantization in QUANTIZATIONS:
        folder = tmp_path / quantization
        folder.mkdir()
        write_export(model, folder, quantization)
        found = compare(model, folder, sources, "random", threads=1)
        sizes[quantization] = (folder / "model.bin").stat().st_size
        assert found.log_probability_difference < 0.5
        assert found.sentences == 30
        if quantization == "float32":
            assert found.greedy_different == 0
            assert found.log_probability_difference < 1e-4
    assert sizes["int8"] < sizes["float32"]
    assert sizes["float16"] < sizes["float32"]
    assert all(tensor.equal(before[name]) for name, tensor in model.model.state_dict().items())
    with pytest.raises(UserError, match="int4 is not known"):
        write_export(model, tmp_path, "int4")


def test_an_export_that_differs_is_not_written(
    model: LoadedModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A converter with a mistake: every position is one too far."""
    from nmt import ctranslate2_model

    def shifted(first: int, *arguments: Any) -> Any:
        return sinusoidal(first + 1, *arguments)

    sinusoidal = ctranslate2_model.sinusoidal_positions
    export(model.folder, tmp_path / "out")
    before = (tmp_path / "out" / MANIFEST).read_bytes()
    monkeypatch.setattr(ctranslate2_model, "sinusoidal_positions", shifted)
    for name in ("new", "out"):
        with pytest.raises(ExportFailed, match="differ"):
            export(model.folder, tmp_path / name)
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    assert (tmp_path / "out" / MANIFEST).read_bytes() == before


def test_the_folder_says_what_it_is(model: LoadedModel, tmp_path: Path) -> None:
    found = export(model.folder, tmp_path / "out", "int8")
    assert "made of the vocabulary" in found.sample
    assert is_export(tmp_path / "out")
    assert not is_export(model.folder)
    manifest = read_manifest(tmp_path / "out")
    assert manifest["export"]["quantization"] == "int8"
    assert manifest["model"]["step"] == 7
    names = {path.name for path in (tmp_path / "out").iterdir()} - {MANIFEST}
    assert names == set(manifest["files"])
    assert {"model.bin", "config.json", "config.toml", "tokenizer.model"} < names
    loaded, engine = load_engine(tmp_path / "out", threads=1)
    assert loaded.model is None
    assert loaded.config == model.config
    assert engine.translate_ids([[7, 8]])[0]
    with pytest.raises(UserError, match="exported with quantization int8, not float32"):
        load_engine(tmp_path / "out", quantization="float32")
    with (tmp_path / "out" / "model.bin").open("ab") as file:
        file.write(b"x")
    with pytest.raises(UserError, match="not the file that was saved"):
        load_engine(tmp_path / "out")


def test_pieces_that_come_twice() -> None:
    class Odd:
        def __len__(self) -> int:
            return 5

        def pieces(self, ids: Any) -> list[str]:
            return [["a", "b", "a", "a<2>", "a"][i] for i in ids]

    found = vocabulary(Odd())  # type: ignore[arg-type]
    assert found[:3] == ["a", "b", "a<2>"]
    assert len(set(found)) == 5


def test_without_ctranslate2(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "ctranslate2", None)
    with pytest.raises(UserError, match=r"pip install -e '\.\[export\]'"):
        require_ctranslate2()


def test_the_section_export_is_optional() -> None:
    data = '[data]\ntrain = "a"\nvalidation = "b"\nsource_language = "en"\ntarget_language = "de"\n'
    plain = parse_config(data)
    assert plain.export is None
    assert "export" not in dump_config(plain)
    asked = parse_config(data + '[export]\nquantization = "int8"\n')
    assert asked.export is not None
    assert asked.export.quantization == "int8"
    assert parse_config(dump_config(asked)) == asked
    with pytest.raises(UserError, match=r"config:7: unknown key export\.quantisation; did you mean quant"):
        parse_config(data + '[export]\nquantisation = "int8"\n', file="config")
    with pytest.raises(UserError, match=r'export.quantization = "int4" is not valid'):
        parse_config(data, overrides=["export.quantization=int4"])
