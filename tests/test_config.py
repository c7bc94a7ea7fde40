"""Configurations: defaults, round trips, overrides, and one line for every mistake, with file and line."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from nmt.config import MODEL_SECTIONS, PRESETS, SECTIONS, Config
from nmt.config_file import changed_keys, dump_config, load_config, parse_config, parse_override
from nmt.errors import UserError

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


# --- defaults ----------------------------------------------------------------------------------------------


def test_defaults() -> None:
    config = parse_config(DATA)
    assert (config.model.architecture, config.model.preset) == ("transformer", "tiny")
    assert config.data.train_prefixes == ("corpus/train",)
    assert config.data.test_prefixes == ()
    assert config == parse_config(DATA + "[tokenizer]\n[model]\n[training]\n[search]\n")


@pytest.mark.parametrize(
    ("architecture", "preset"), [(a, preset) for a, presets in PRESETS.items() for preset in presets]
)
def test_presets(architecture: str, preset: str) -> None:
    config = parse_config(f'{DATA}[model]\narchitecture = "{architecture}"\npreset = "{preset}"\n')
    assert isinstance(config.model, MODEL_SECTIONS[architecture])
    found = config.model.model_dump()
    assert {key: found[key] for key in PRESETS[architecture][preset]} == PRESETS[architecture][preset]


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


# --- round trips -------------------------------------------------------------------------------------------

rates = st.floats(0, 1, exclude_max=True)
sizes = st.integers(1, 10**12)
texts = st.one_of(st.text(st.characters(exclude_categories=["Cs"])), st.sampled_from(ODD))


@st.composite
def configurations(draw: Any) -> Config:
    shared = draw(st.booleans())
    if draw(st.booleans()):
        heads = draw(st.integers(1, 64))
        model: dict[str, Any] = dict(
            architecture="transformer",
            preset=draw(st.sampled_from([None, *PRESETS["transformer"]])),
            encoder_layers=draw(sizes),
            decoder_layers=draw(sizes),
            width=2 * heads * draw(st.integers(1, 100)),
            feed_forward_width=draw(sizes),
            heads=heads,
            dropout=draw(rates),
            embedding_dropout=draw(st.none() | rates),
            norm=draw(st.sampled_from(["post", "pre"])),
            positions=draw(st.sampled_from(["sinusoidal", "learned"])),
            tie_embeddings=draw(st.sampled_from(["all", "target", "none"] if shared else ["target", "none"])),
        )
    else:
        width = draw(sizes)
        model = dict(
            architecture="bahdanau",
            preset=draw(st.sampled_from([None, *PRESETS["bahdanau"]])),
            embedding_width=width,
            hidden_width=draw(sizes),
            attention_width=draw(sizes),
            maxout_width=width,
            dropout=draw(rates),
            tie_embeddings=draw(st.sampled_from(["all", "target", "none"] if shared else ["target", "none"])),
        )
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
                schedule=draw(st.sampled_from(["inverse-sqrt", "linear", "cosine", "constant"])),
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


def test_dump_names_every_key() -> None:
    config = parse_config(DATA)
    dumped = dump_config(config)
    for section, fields in {**SECTIONS, "model": MODEL_SECTIONS["transformer"]}.items():
        assert f"[{section}]\n" in dumped
        for key in fields.model_fields:
            assert (f"\n{key} = " in dumped) == (getattr(getattr(config, section), key) is not None)


# --- overrides ---------------------------------------------------------------------------------------------


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


@pytest.mark.parametrize(
    "override", ["", "=", "x", "training", "training=3", "training.seed", ".seed=3", "training.=3", "seed=3"]
)
def test_overrides_of_no_form(override: str) -> None:
    with pytest.raises(UserError, match=r"not of the form section\.key=value; e\.g\. --set training\.seed=2"):
        parse_config(DATA, overrides=[override])


# --- mistakes ----------------------------------------------------------------------------------------------

# The file, with HERE in the line that is wrong (none: no line is named), and what the message says.
MISTAKES = {
    "unknown key": (
        DATA + "[training]\nlearning_rat = 3 # HERE\n",
        ["unknown key training.learning_rat", "did you mean learning_rate?"],
    ),
    "unknown key in data": (DATA + "tran = 'x' # HERE\n", ["unknown key data.tran", "did you mean train?"]),
    "unknown key in tokenizer": (
        DATA + "[tokenizer]\nvocab_size = 3 # HERE\n",
        ["did you mean vocabulary_size?"],
    ),
    "unknown key in model": (
        DATA + "[model]\nlayers = 3 # HERE\n",
        ["unknown key model.layers", "encoder_layers"],
    ),
    "unknown key in search": (DATA + "[search]\nbeam = 3 # HERE\n", ["unknown key search.beam", "beam_size"]),
    "unknown key like no other": (
        DATA + "[search]\nxyzzy = 3 # HERE\n",
        ["unknown key search.xyzzy; known: beam_size,"],
    ),
    "same key in another section": (
        DATA + "[search]\nbatch_tokens = 3\n[training]\nbatch_tokns = 3 # HERE\n",
        ["did you mean batch_tokens?"],
    ),
    "wrong value of a name in two sections": (
        DATA + "[search]\nbatch_tokens = 30\n[training]\nbatch_tokens = 3 # HERE\n",
        ["training.batch_tokens = 3 is not valid", "greater than or equal to 16"],
    ),
    "unknown section": (
        DATA + "[trainig] # HERE\nseed = 1\n",
        ["unknown section [trainig]", "did you mean training?"],
    ),
    "top-level key": ("seed = 3\n" + DATA, ["unknown section [seed]"]),
    "section as a value": ("training = 3\n" + DATA, ["training is a section; write [training]"]),
    "list of sections": (DATA + "[[training]]\nseed = 1\n", ["training is a section; write [training]"]),
    "wrong type": (
        DATA + "[training]\nseed = 'x' # HERE\n",
        ['training.seed = "x" is not valid', "valid integer"],
    ),
    "fraction for a count": (
        DATA + "[training]\nmax_steps = 1.5 # HERE\n",
        ["training.max_steps = 1.5", "integer"],
    ),
    "list for a number": (DATA + "[training]\nseed = [1] # HERE\n", ["training.seed = [1]", "integer"]),
    "table for a number": (DATA + "[training]\nseed = {a = 1} # HERE\n", ["training.seed = ", "integer"]),
    "date for a number": (DATA + "[training]\nseed = 2024-01-01 # HERE\n", ["training.seed = ", "integer"]),
    "number for a path": (DATA.replace('"corpus/val"', "3 # HERE"), ["data.validation = 3", "valid string"]),
    "number among paths": (
        DATA.replace('"corpus/train"', "['a', 3] # HERE"),
        ["data.train = ", "valid string"],
    ),
    "several lines": (DATA.replace('"corpus/train"', "[ # HERE\n  'a',\n  3,\n]"), ["data.train = "]),
    "out of range": (DATA + "[model]\ndropout = 1.0 # HERE\n", ["model.dropout = 1.0", "less than 1"]),
    "below range": (
        DATA + "[training]\nlearning_rate = -1 # HERE\n",
        ["training.learning_rate = -1", "greater than 0"],
    ),
    "not a number": (DATA + "[training]\nlearning_rate = nan # HERE\n", ["training.learning_rate = NaN"]),
    "no member": (
        DATA + "[training]\nschedule = 'cosin' # HERE\n",
        ['training.schedule = "cosin"', "'cosine'"],
    ),
    "beta out of range": (DATA + "[training]\nbetas = [0.9, 1.5] # HERE\n", ["training.betas", "1.5"]),
    "three betas": (DATA + "[training]\nbetas = [0.9, 0.9, 0.9] # HERE\n", ["training.betas"]),
    "one beta": (DATA + "[training]\nbetas = [0.9] # HERE\n", ["training.betas = [0.9]"]),
    "bad TOML": (DATA + "[training]\nseed = # HERE\n", ["not valid TOML: Invalid value"]),
    "unquoted": (DATA.replace('"en"', "en # HERE"), ["not valid TOML: Invalid value"]),
    "key twice": (DATA + "validation = 'x' # HERE\n", ["not valid TOML: Cannot overwrite a value"]),
    "section twice": (DATA + "[training]\nseed = 1\n[training] # HERE\n", ["not valid TOML: Cannot declare"]),
    "string without end": (DATA + "[training]\ndevice = 'cpu\n", ["not valid TOML"]),
    "empty": ("", ["no [data] section"]),
    "no data section": ("[training]\nseed = 1\n", ["no [data] section; say what to train on"]),
    "missing key": (
        "# first\n" + DATA.replace("[data]", "[data] # HERE").replace('validation = "corpus/val"\n', ""),
        ["data.validation is missing; add it under [data]"],
    ),
    "empty data section": ("\n\n[data] # HERE\n", ["data.train is missing"]),
    "heads": (
        DATA + "[model]\nwidth = 100\nheads = 7 # HERE\n",
        ["model.heads = 7 does not divide model.width = 100; use 4, 5, 10"],
    ),
    "heads of the preset": (
        DATA + "[model] # HERE\nwidth = 130\n",
        ["model.heads = 4 does not divide model.width = 130"],
    ),
    "odd width": (DATA + "[model]\nheads = 1\nwidth = 33 # HERE\n", ["model.width = 33 is odd"]),
    "tie all": (
        DATA + "[tokenizer]\nshared = false\n[model]\ntie_embeddings = 'all' # HERE\n",
        ['model.tie_embeddings = "all" needs one vocabulary', "tokenizer.shared = true"],
    ),
    "maxout": (
        DATA + "[model]\narchitecture = 'bahdanau'\nmaxout_width = 7 # HERE\n",
        ["model.maxout_width = 7 must equal model.embedding_width = 128", 'model.tie_embeddings = "none"'],
    ),
    "sampling words": (
        DATA + "[tokenizer]\ntype = 'word'\nsampling = 0.1 # HERE\n",
        ["tokenizer.sampling needs subwords; set tokenizer.type to bpe or unigram (it is word)"],
    ),
    "unknown preset": (
        DATA + "[model]\npreset = 'bas' # HERE\n",
        ['model.preset = "bas" is not known for transformer; did you mean base?'],
    ),
    "preset of another architecture": (
        DATA + "[model]\narchitecture = 'bahdanau'\npreset = 'big' # HERE\n",
        ['model.preset = "big" is not known for bahdanau; known: tiny, small, base'],
    ),
    "unknown architecture": (
        DATA + "[model]\narchitecture = 'tranformer' # HERE\n",
        ['model.architecture = "tranformer" is not known; did you mean transformer?'],
    ),
    "architecture of a number": (
        DATA + "[model]\narchitecture = 3 # HERE\n",
        ["model.architecture = 3 is not known"],
    ),
    "architecture of a list": (
        DATA + "[model]\narchitecture = ['bahdanau'] # HERE\n",
        ["model.architecture = "],
    ),
    "architecture of a table": (DATA + "[model]\narchitecture = {a = 1} # HERE\n", ["model.architecture = "]),
    "preset of a list": (DATA + "[model]\npreset = ['base'] # HERE\n", ["model.preset = "]),
    "key of another architecture": (
        DATA + "[model]\narchitecture = 'bahdanau'\nheads = 4 # HERE\n",
        ["unknown key model.heads", "embedding_width"],
    ),
    "key of another architecture, the other way": (
        DATA + "[model]\nmaxout_width = 4 # HERE\n",
        ["unknown key model.maxout_width"],
    ),
    "spaces and comments": (
        "# [training]\n\n" + DATA + "[ training ] # seed = 'x'\n# seed = 'x'\n\n  seed='x' # HERE\n",
        ['training.seed = "x"'],
    ),
    "quoted key": (DATA + '[training]\n"seed" = "x" # HERE\n', ['training.seed = "x"']),
    "dotted key": ("training.seed = 'x' # HERE\n" + DATA, ['training.seed = "x"']),
}


def line_of_mistake(text: str) -> int | None:
    return next((n for n, line in enumerate(text.split("\n"), start=1) if "HERE" in line), None)


@pytest.mark.parametrize("name", MISTAKES)
@pytest.mark.parametrize("ending", ["\n", "\r\n"], ids=["LF", "CRLF"])
def test_mistakes(name: str, ending: str, tmp_path: Path) -> None:
    text, fragments = MISTAKES[name]
    file = tmp_path / "c.toml"
    file.write_bytes(text.replace("\n", ending).encode())
    with pytest.raises(UserError) as caught:
        load_config(file)
    shown, line = str(caught.value), line_of_mistake(text)
    for fragment in fragments:
        assert fragment in shown
    assert len(shown.splitlines()) == 1
    if line is None:
        assert shown.startswith(f"{file}:")
    else:
        assert shown.startswith(f"{file}:{line}: ")
    assert caught.value.line == line or line is None
    # The remedy follows a semicolon.
    assert "; " in caught.value.message
    assert not caught.value.message.endswith((".", ";", "use", " "))


@pytest.mark.parametrize(
    ("override", "fragments"),
    [
        ("training.sed=3", ["unknown key training.sed", "did you mean seed?"]),
        ("training.seed=x", ['training.seed = "x" is not valid']),
        ("training.seed=-1", ["training.seed = -1 is not valid"]),
        ("training.seed.x=1", ["unknown key training.seed.x"]),
        ("model.preset=huge", ['model.preset = "huge" is not known']),
        ("model.architecture=rnn", ['model.architecture = "rnn" is not known']),
        ("model.heads=7", ["model.heads = 7 does not divide model.width = 128"]),
        ("tokenizer.sampling=2", ["tokenizer.sampling = 2"]),
        ("data.train=3", ["data.train = 3"]),
    ],
)
def test_mistaken_overrides_are_named(override: str, fragments: list[str]) -> None:
    """The command line is at fault, so no line of the file is named."""
    with pytest.raises(UserError) as caught:
        parse_config(DATA + "[training]\nseed = 5\n", file="c.toml", overrides=[override])
    shown = str(caught.value)
    assert shown.startswith(f"--set {override}: ")
    for fragment in fragments:
        assert fragment in shown
    assert len(shown.splitlines()) == 1
    assert caught.value.file is None


def test_override_of_an_unknown_section() -> None:
    with pytest.raises(UserError, match=r"unknown section .*did you mean training") as caught:
        parse_config(DATA, file="c.toml", overrides=["trainin.seed=3"])
    assert str(caught.value).startswith("--set trainin.seed=3: ")


def test_heads_of_a_narrow_model() -> None:
    """The remedy names numbers that work, also where no head could be 8 wide."""
    with pytest.raises(UserError, match=r"does not divide model\.width = 6; use [1236]\b"):
        parse_config(DATA + "[model]\nwidth = 6\nheads = 4\n")


@pytest.mark.parametrize("width", [64, 100, 128, 510, 512])
@pytest.mark.parametrize("heads", [3, 7, 9, 60])
def test_heads_that_are_proposed_work(width: int, heads: int) -> None:
    text = DATA + f"[model]\nwidth = {width}\nheads = "
    if width % heads == 0:
        parse_config(text + str(heads))
        return
    with pytest.raises(UserError) as caught:
        parse_config(text + str(heads))
    proposed = caught.value.message.split("; use ")[1].split(", ")
    for number in proposed:
        parse_config(text + number)


@pytest.mark.parametrize(
    "text",
    [
        "a = " + "[" * 100_000,
        "a = " + "[" * 100_000 + "]" * 100_000,
        DATA + "[training]\nseed = " + "9" * 5000,
        "\0",
        "\x7f = 3",
        "[" * 1000,
        "a" * 100_000,
        "= 3",
        '"\\ud800" = 3',
        DATA + 'test = "\\U00110000"',
        "<html><body>404</body></html>",
        '{"data": {"train": "x"}}',
        "data:\n  train: x\n",
    ],
    ids=lambda text: ascii(text[-20:]),
)
def test_hostile_text(text: str) -> None:
    with pytest.raises(UserError) as caught:
        parse_config(text, file="c.toml")
    assert len(str(caught.value).splitlines()) == 1


@settings(deadline=None, max_examples=200)
@given(
    text=st.text(st.characters(exclude_categories=["Cs"]))
    | st.text(st.sampled_from("[]{}=\"'\\.,#\n\r abdtrx01-:_")),
    override=st.text(st.characters(exclude_categories=["Cs"])) | st.none(),
)
def test_any_text_is_a_configuration_or_a_user_error(text: str, override: str | None) -> None:
    overrides = [] if override is None else [f"training.seed={override}"]
    for whole in (text, DATA + text):
        shown = "one line"
        try:
            parse_config(whole, overrides=overrides)
        except UserError as error:
            shown = str(error)
        assert len(shown.splitlines()) == 1


# --- files -------------------------------------------------------------------------------------------------


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
    with pytest.raises(UserError, match="cannot be read; check its permissions"):
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


# --- languages and differences -----------------------------------------------------------------------------


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
