"""Configurations: defaults, round trips, overrides, files, differences."""

from __future__ import annotations

import os
import tomllib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from nmt.config import SECTIONS, Config
from nmt.config_file import changed_keys, dump_config, load_config, parse_config, parse_override
from nmt.errors import UserError
from nmt.model_config import MODEL_SECTIONS
from nmt.presets import PRESETS, TRAINING_PRESETS

DATA = """[data]
train = "corpus/train"
validation = "corpus/val"
source_language = "en"
target_language = "de"
"""

ODD = [
    "",
    " ",
    '"',
    "'",
    '"""',
    "'''",
    "\\",
    "\\n",
    "\\u0041",
    'a"b\\c',
    "\x7f",
    "\\\x7f",
    "\x7f\\u007f",
    "\0",
    "\x01\x1b\x1f",
    "\b\f\n\r\t",
    "\x80\x85\x9f",
    "\u2028\u2029",
    "ä ß é",
    "日本語",
    "👩‍👩‍👧",
    "\ufeff",
    "\uffff\U0010ffff",
    "# no comment",
    "[data]",
    "a = 1",
    "C:\\Users\\nmt",
    "{}",
    "no",
    "nan",
    "true",
]


# --- defaults --------------------------------------------------------------------------------------------


def test_defaults() -> None:
    config = parse_config(DATA)
    assert (config.model.architecture, config.model.preset) == ("transformer", "tiny")
    assert config.data.train_prefixes == ("corpus/train",)
    assert config.data.test_prefixes == ()
    assert config == parse_config(DATA + "[tokenizer]\n[model]\n[training]\n[search]\n")


def test_a_key_beats_its_preset() -> None:
    config = parse_config(DATA + '[model]\npreset = "base"\ndropout = 0.25\nwidth = 256\n')
    assert (config.model.dropout, config.model.width) == (0.25, 256)  # type: ignore[union-attr]
    assert config.model.feed_forward_width == 2048  # type: ignore[union-attr]


def test_configurations_are_frozen() -> None:
    config = parse_config(DATA)
    with pytest.raises(ValidationError, match="frozen"):
        config.training.seed = 3  # type: ignore[misc]


def test_separate_vocabularies_tie_the_target_only() -> None:
    config = parse_config(DATA + "[tokenizer]\nshared = false\n")
    assert config.model.tie_embeddings == "target"
    assert parse_config(DATA).model.tie_embeddings == "all"


@pytest.mark.parametrize("spelling", ["false", "False", "no", "off", "0"])
def test_every_spelling_of_false_ties_alike(spelling: str) -> None:
    """What is accepted as false separates the vocabularies and so unties them; else the spelling is wrong."""
    override = f"tokenizer.shared={spelling}"
    shared, tie, message = True, "", "tokenizer.shared"
    try:
        config = parse_config(DATA, overrides=[override])
        shared, tie = config.tokenizer.shared, config.model.tie_embeddings
    except UserError as error:
        message = error.message.split(";")[0]
    assert (shared, tie) in ((False, "target"), (True, ""))
    assert "tokenizer.shared" in message


# --- round trips -----------------------------------------------------------------------------------------

rates = st.floats(0, 1, exclude_max=True)
sizes = st.integers(1, 10**6)
texts = st.one_of(st.text(st.characters(exclude_categories=["Cs"])), st.sampled_from(ODD))


def drawn_stack(draw: Any, hidden: int) -> dict[str, Any]:
    """The keys that `recurrent` and `luong` share."""
    layers = draw(st.integers(1, 50))
    return dict(
        cell=draw(st.sampled_from(["lstm", "gru"])),
        hidden_width=hidden,
        layers=layers,
        bidirectional=hidden % 2 == 0 and draw(st.booleans()),
        reverse_source=draw(st.booleans()),
        residual=layers > 1 and draw(st.booleans()),
    )


def drawn_model(draw: Any, shared: bool) -> dict[str, Any]:
    architecture = draw(st.sampled_from(list(PRESETS)))
    width, tie = (
        draw(sizes),
        draw(st.sampled_from(["all", "target", "none"] if shared else ["target", "none"])),
    )
    other = width if tie != "none" else draw(sizes)  # of what is projected
    model: dict[str, Any] = dict(
        architecture=architecture,
        preset=draw(st.sampled_from([None, *PRESETS[architecture]])),
        dropout=draw(rates),
        embedding_dropout=draw(st.none() | rates),
        tie_embeddings=tie,
    )
    if architecture == "transformer":
        heads = draw(st.integers(1, 64))
        return model | dict(
            encoder_layers=draw(sizes),
            decoder_layers=draw(sizes),
            width=2 * heads * draw(st.integers(1, 100)),
            feed_forward_width=draw(sizes),
            heads=heads,
            attention_dropout=draw(rates),
            norm=draw(st.sampled_from(["post", "pre"])),
            positions=draw(st.sampled_from(["sinusoidal", "learned", "relative"])),
        )
    model |= dict(embedding_width=width, initialization=draw(st.sampled_from(["scaled", "paper"])))
    if architecture == "recurrent":
        return model | drawn_stack(draw, other)
    model |= dict(attention_dropout=draw(rates))
    if architecture == "bahdanau":
        return model | dict(hidden_width=draw(sizes), attention_width=draw(sizes), maxout_width=other)
    return (
        model
        | drawn_stack(draw, draw(sizes))
        | dict(
            attentional_width=other,
            score=draw(st.sampled_from(["dot", "general", "concat", "location"])),
            window=draw(st.sampled_from(["global", "local-m", "local-p"])),
            window_size=draw(st.integers(1, 256)),
            max_positions=draw(st.integers(513, 10**6)),
            input_feeding=draw(st.booleans()),
        )
    )


optimizers = [
    *({"optimizer": name} for name in ("adam", "adamw", "adadelta", "sgd")),
    *({"preset": name, "optimizer": values["optimizer"]} for name, values in TRAINING_PRESETS.items()),
]


@st.composite
def configurations(draw: Any) -> Config:
    shared = draw(st.booleans())
    model = drawn_model(draw, shared)
    return Config.model_validate(
        dict(
            data=dict(
                train=draw(texts.filter(bool) | st.lists(texts, min_size=1).map(tuple)),
                validation=draw(texts),
                test=draw(texts | st.lists(texts).map(tuple)),
                source_language="y" + draw(texts),
                target_language="x" + draw(texts),
                max_ratio=draw(st.floats(1, exclude_min=True, allow_infinity=False)),
                drop_copies=draw(st.booleans()),
                temperature=draw(st.floats(0, allow_infinity=False)),
                workers=draw(st.just("auto") | st.integers(0, 1024)),
            ),
            tokenizer=dict(
                type=draw(st.sampled_from(["bpe", "unigram"])), shared=shared, sampling=draw(rates)
            ),
            model=model,
            training=dict(
                seed=draw(st.integers(0, 2**64)),
                learning_rate=draw(st.floats(0, exclude_min=True, allow_infinity=False)),
                betas=(draw(rates), draw(rates)),
                epsilon=draw(st.floats(0, exclude_min=True, allow_infinity=False)),
                device=draw(texts),
                **draw(st.sampled_from(optimizers)),
                schedule=draw(
                    st.sampled_from(["inverse-sqrt", "linear", "cosine", "constant", "noam", "halving"])
                ),
                halve_every_epochs=draw(st.floats(0, exclude_min=True, allow_infinity=False)),
                max_epochs=draw(st.integers(0, 10**9)),
                rho=draw(rates),
            ),
            search=dict(beam_size=draw(sizes), length_penalty=draw(st.floats(0, 10))),
        )
    )


@settings(deadline=None, max_examples=150)
@given(config=configurations())
def test_dump_and_parse(config: Config) -> None:
    if config.model.preset is None:  # a file without a preset gets the default one
        config = config.model_copy(update={"model": config.model.model_copy(update={"preset": "tiny"})})
    assert parse_config(dump_config(config)) == config


@pytest.mark.parametrize("architecture", list(PRESETS))
@pytest.mark.parametrize("text", ODD, ids=ascii)
def test_odd_strings(architecture: str, text: str, tmp_path: Path) -> None:
    """Through a file as well, where line ends could change."""
    config = parse_config(DATA + f'[model]\narchitecture = "{architecture}"\n')
    data = config.data.model_copy(
        update={"train": (text, "/x" + text), "validation": "/v" + text, "target_language": text}
    )
    config = config.model_copy(update={"data": data})
    assert parse_config(dump_config(config)) == config
    (tmp_path / "c.toml").write_bytes(dump_config(config).encode())
    assert load_config(tmp_path / "c.toml") == config


@pytest.mark.parametrize("architecture", PRESETS)
def test_dump_names_every_key(architecture: str) -> None:
    """Those that have a value: TOML has no word for none."""
    config = parse_config(DATA, overrides=[f"model.architecture={architecture}"])
    dumped = tomllib.loads(dump_config(config))
    for section, fields in {**SECTIONS, "model": MODEL_SECTIONS[architecture]}.items():
        values = getattr(config, section)
        assert list(dumped[section]) == [
            key for key in fields.model_fields if getattr(values, key) is not None
        ]


# --- overrides -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("override", "section", "key", "value"),
    [
        ("training.seed=7", "training", "seed", 7),
        ("training.seed = 7 ", "training", "seed", 7),
        ("training.seed=1_000", "training", "seed", 1000),
        ("training.learning_rate=3e-4", "training", "learning_rate", 3e-4),
        ("training.learning_rate=1", "training", "learning_rate", 1.0),
        ("tokenizer.shared=true", "tokenizer", "shared", True),
        ("data.drop_copies=true", "data", "drop_copies", True),
        ("training.betas=[0.5, 0.25]", "training", "betas", (0.5, 0.25)),
        ("training.schedule=cosine", "training", "schedule", "cosine"),
        ('training.schedule="cosine"', "training", "schedule", "cosine"),
        ("training.schedule='cosine'", "training", "schedule", "cosine"),
        ("training.device=cuda:1", "training", "device", "cuda:1"),
        ("data.train=a/b c.d", "data", "train", "a/b c.d"),
        ('data.train=["a", "b"]', "data", "train", ("a", "b")),
        ("data.train=C:\\corpora\\new", "data", "train", "C:\\corpora\\new"),
        ("data.train=a=b", "data", "train", "a=b"),
        ('data.train="a=b"', "data", "train", "a=b"),
        ("data.train=größer", "data", "train", "größer"),
        ("data.test=", "data", "test", ""),
        ("data.source_language=no", "data", "source_language", "no"),
        ("data.source_language=nan", "data", "source_language", "nan"),
        ("data.validation=2016", "data", "validation", "2016"),
        ("data.validation=1_000", "data", "validation", "1_000"),
        ("data.validation='2016'", "data", "validation", "2016"),
        ('data.validation="2016"', "data", "validation", "2016"),
        ("data.validation=true", "data", "validation", "true"),
        ("data.validation=2016-07-01", "data", "validation", "2016-07-01"),
        ("data.train=2016", "data", "train", "2016"),
        ('data.train="2016"', "data", "train", "2016"),
        ('data.train=["2016"]', "data", "train", ("2016",)),
        ("training.initialize_from=7", "training", "initialize_from", "7"),
        ("training.device='cuda:1'", "training", "device", "cuda:1"),
        ("search.tag=1", "search", "tag", "1"),
        ("search.batch_tokens=64", "search", "batch_tokens", 64),
        ("data.workers=2", "data", "workers", 2),
        ("training. seed=2", "training", "seed", 2),
        ("training .seed =2", "training", "seed", 2),
        ("model.embedding_dropout=0.5", "model", "embedding_dropout", 0.5),
        ("model.norm=pre", "model", "norm", "pre"),
        ("search.beam_size=1", "search", "beam_size", 1),
    ],
)
def test_overrides(override: str, section: str, key: str, value: Any) -> None:
    found = getattr(getattr(parse_config(DATA, overrides=[override]), section), key)
    assert found == value
    assert type(found) is type(value)


def test_overrides_beat_the_file_and_each_other() -> None:
    text = DATA + "[training]\nseed = 2\nmax_steps = 5\n"
    config = parse_config(text, overrides=["training.seed=3", "training.seed=4"])
    assert (config.training.seed, config.training.max_steps) == (4, 5)
    config = parse_config(text, overrides=["model.architecture=bahdanau", "model.preset=small"])
    assert (config.model.architecture, config.model.preset) == ("bahdanau", "small")


def test_parse_override() -> None:
    assert parse_override(" data.train = x ") == (("data", "train"), "x")
    assert parse_override("a.b.c=1") == (("a", "b.c"), 1)
    assert parse_override("data.alignments=2016") == (("data", "alignments"), "2016")
    assert parse_override(" training . seed = 2 ") == (("training", "seed"), 2)


@pytest.mark.parametrize("key", ["architecture", "preset", "norm", "cell", "score", "initialization"])
def test_names_of_a_model_are_text(key: str) -> None:
    """Whichever architecture has the key."""
    assert parse_override(f"model.{key}=2016") == (("model", key), "2016")


@pytest.mark.parametrize("name", ["model.width", "training.freeze", "data.tags", "no.such", "data.no_such"])
def test_what_takes_no_text_alone_is_read_as_toml(name: str) -> None:
    assert parse_override(f"{name}=2016")[1] == 2016


@pytest.mark.parametrize(
    "override",
    [
        "",
        "=",
        "x",
        "training",
        "training=3",
        "training.seed",
        ".seed=3",
        "training.=3",
        "training. =3",
        " .seed=3",
        "seed=3",
    ],
)
def test_overrides_of_no_form(override: str) -> None:
    with pytest.raises(UserError, match=r"not of the form section\.key=value; e\.g\. --set training\.seed=2"):
        parse_config(DATA, overrides=[override])


# --- files -----------------------------------------------------------------------------------------------


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such configuration file; write one with `nmt init`") as caught:
        load_config(tmp_path / "none.toml")
    assert str(caught.value).startswith(f"{tmp_path / 'none.toml'}: ")


def test_folder(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="is a folder; name a configuration file"):
        load_config(tmp_path)


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_unreadable_file(tmp_path: Path) -> None:
    file = tmp_path / "c.toml"
    file.write_text(DATA)
    file.chmod(0)
    with pytest.raises(UserError, match=r"cannot be read \(Permission denied\); check the path"):
        load_config(file)


@pytest.mark.parametrize(
    ("content", "line"), [(b"\x89PNG\r\n\x1a\n\0\xff", 1), (b"# one\n# two\n\xe4 = 3\n", 3)]
)
def test_binary_file(tmp_path: Path, content: bytes, line: int) -> None:
    file = tmp_path / "c.toml"
    file.write_bytes(content)
    with pytest.raises(UserError, match="is not UTF-8 text") as caught:
        load_config(file)
    assert caught.value.line == line


@pytest.mark.parametrize("name", ["c.toml/inside", "x" * 300, "loop"])
def test_other_paths_that_cannot_be_read(tmp_path: Path, name: str) -> None:
    """A file taken for a folder, a name too long, a link to itself."""
    (tmp_path / "c.toml").write_text(DATA)
    (tmp_path / "loop").symlink_to("loop")
    with pytest.raises(UserError):
        load_config(tmp_path / name)


def test_paths_beside_the_configuration(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """From the working directory where there is something, else from the configuration's folder."""
    recipe, here = tmp_path / "recipe", tmp_path / "here"
    for folder in (recipe, here):
        (folder / "corpus").mkdir(parents=True)
    (recipe / "c.toml").write_text(
        DATA.replace('"corpus/train"', '["corpus/train", "corpus/both", "nowhere/x"]')
        + 'test = "corpus/test.tsv"\n'
    )
    for name in (
        "corpus/train.en",
        "corpus/train.de",
        "corpus/both.en.gz",
        "corpus/val.en",
        "corpus/test.tsv",
    ):
        (recipe / name).write_bytes(b"")
    (here / "corpus" / "both.en").write_bytes(b"")
    (here / "corpus" / "val.en").write_bytes(b"")
    monkeypatch.chdir(here)
    data = load_config(recipe / "c.toml").data
    beside = str(recipe / "corpus")
    assert data.train == (f"{beside}/train", "corpus/both", "nowhere/x")
    assert data.validation == "corpus/val"
    assert data.test == f"{beside}/test.tsv"
    monkeypatch.chdir(recipe)
    data = load_config("c.toml").data
    assert (data.train, data.validation) == (("corpus/train", "corpus/both", "nowhere/x"), "corpus/val")


def test_pattern_characters_in_paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`*` and `[` in a prefix are names, not patterns."""
    (tmp_path / "recipe").mkdir()
    (tmp_path / "here").mkdir()
    (tmp_path / "recipe" / "[a]*.en").write_bytes(b"")
    (tmp_path / "here" / "abc.en").write_bytes(b"")
    (tmp_path / "recipe" / "c.toml").write_text(
        DATA.replace("corpus/train", "[a]*").replace("corpus/val", "a*")
    )
    monkeypatch.chdir(tmp_path / "here")
    data = load_config(tmp_path / "recipe" / "c.toml").data
    assert (data.train, data.validation) == (str(tmp_path / "recipe" / "[a]*"), "a*")


# --- languages and differences ---------------------------------------------------------------------------


def test_norwegian() -> None:
    """YAML would read `no` as false."""
    for config in (
        parse_config(DATA.replace('"en"', '"no"')),
        parse_config(DATA, overrides=["data.source_language=no"]),
    ):
        assert config.data.source_language == "no"
        assert parse_config(dump_config(config)).data.source_language == "no"


def test_changed_keys() -> None:
    old = parse_config(DATA)
    assert changed_keys(old, old) == []
    overrides = {
        "data.test": ("[]", '["a", "b"]', '["a", "b"]'),
        "tokenizer.vocabulary_size": ("8000", "4000", "4000"),
        "model.embedding_dropout": ("not set", "0.5", "0.5"),
        "model.norm": ('"post"', '"pre"', "pre"),
        "training.betas": ("[0.9, 0.98]", "[0.9, 0.5]", "[0.9, 0.5]"),
        "training.clip_norm": ("0.0", "1.5", "1.5"),
        "data.drop_copies": ("false", "true", "true"),
        "training.device": ('"auto"', '"cuda:1"', "cuda:1"),
    }
    for name, (before, after, given_as) in overrides.items():
        new = parse_config(DATA, overrides=[f"{name}={given_as}"])
        assert changed_keys(old, new) == [f"{name}: {before} -> {after}"]
        assert changed_keys(new, old) == [f"{name}: {after} -> {before}"]
    every = parse_config(
        DATA, overrides=[f"{name}={given_as}" for name, (_, _, given_as) in overrides.items()]
    )
    assert {row.split(":")[0] for row in changed_keys(old, every)} == set(overrides)


def test_changed_keys_between_architectures() -> None:
    old = parse_config(DATA)
    new = parse_config(DATA, overrides=["model.architecture=bahdanau"])
    rows = dict(row.split(": ", 1) for row in changed_keys(old, new))
    before, after = old.model.model_dump(), new.model.model_dump()
    different = {key for key in before | after if before.get(key) != after.get(key)}
    assert set(rows) == {f"model.{key}" for key in different}
    assert rows["model.heads"] == "4 -> not set"
    assert rows["model.hidden_width"] == "not set -> 256"


@pytest.mark.parametrize("number", ["inf", "nan"])
def test_numbers_are_finite(number: str) -> None:
    with pytest.raises(UserError, match="finite"):
        parse_config(DATA + f"max_ratio = {number}\n")
