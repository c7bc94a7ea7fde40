"""Mistakes in a configuration: one line for each, with file and line, the reason and what is valid."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nmt.config_file import load_config, parse_config
from nmt.errors import UserError
from nmt.presets import PRESETS

DATA = """[data]
train = "corpus/train"
validation = "corpus/val"
source_language = "en"
target_language = "de"
"""
TWO = DATA.replace('"corpus/train"', '["corpus/a", "corpus/b"]')

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
        DATA + "[model]\nlayrs = 3 # HERE\n",
        ["unknown key model.layrs", "known: architecture, preset, encoder_layers, decoder_layers"],
    ),
    "unknown key in a model of another architecture": (
        DATA + "[model]\narchitecture = 'luong'\ninput_feding = 3 # HERE\n",
        ["unknown key model.input_feding; did you mean input_feeding?"],
    ),
    "unknown key in search": (DATA + "[search]\nbeam = 3 # HERE\n", ["unknown key search.beam", "beam_size"]),
    "length penalty": (
        DATA + "[search]\nlength_penalty = 1000 # HERE\n",
        ["search.length_penalty = 1000", "100"],
    ),
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
    "list of sections": (
        DATA + "[[training]] # HERE\nseed = 1\n",
        ["training is a section; write [training]"],
    ),
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
    "decimal comma": (
        DATA + "[training]\nlearning_rate = 0,002 # HERE\n",
        ["not valid TOML: Expected newline"],
    ),
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
        ["bahdanau has no model.heads, which is an option of transformer", "change model.architecture"],
    ),
    "key of another architecture, the other way": (
        DATA + "[model]\nmaxout_width = 4 # HERE\n",
        ["transformer has no model.maxout_width, which is an option of bahdanau"],
    ),
    "key of two other architectures": (
        DATA + "[model]\nlayers = 3 # HERE\n",
        ["transformer has no model.layers, which is an option of recurrent and luong; remove it"],
    ),
    "input feeding of a Transformer": (
        DATA + "[model]\narchitecture = 'transformer'\ninput_feeding = true # HERE\n",
        ["transformer has no model.input_feeding, which is an option of luong; remove it"],
    ),
    "heads of Luong": (
        DATA + "[model]\narchitecture = 'luong'\nheads = 8 # HERE\n",
        ["luong has no model.heads, which is an option of transformer; remove it"],
    ),
    "attention without attention": (
        DATA + "[model]\narchitecture = 'recurrent'\nattention_dropout = 0.1 # HERE\n",
        [
            "recurrent has no model.attention_dropout, which is an option of transformer and bahdanau",
            "and luong; remove it",
        ],
    ),
    "no such score": (
        DATA + "[model]\narchitecture = 'luong'\nscore = 'additive' # HERE\n",
        ['model.score = "additive" is not valid', "'dot', 'general', 'concat' or 'location'"],
    ),
    "no such window": (
        DATA + "[model]\narchitecture = 'luong'\nwindow = 'local' # HERE\n",
        ['model.window = "local" is not valid', "'global', 'local-m' or 'local-p'"],
    ),
    "no such cell": (
        DATA + "[model]\narchitecture = 'recurrent'\ncell = 'rnn' # HERE\n",
        ['model.cell = "rnn" is not valid', "'lstm' or 'gru'"],
    ),
    "location table too short": (
        DATA + "[model]\narchitecture = 'luong'\nscore = 'location'\nmax_positions = 512 # HERE\n",
        [
            "model.max_positions has no room for sentences of data.max_tokens = 512 and their end",
            "513 or more",
        ],
    ),
    "location table too short for the data": (
        DATA + "max_tokens = 2000\n[model] # HERE\narchitecture = 'luong'\nscore = 'location'\n",
        ["model.max_positions has no room", "data.max_tokens = 2000", "set it to 2001 or more"],
    ),
    "window too large": (
        DATA
        + "max_tokens = 30\n[model]\narchitecture = 'luong'\nwindow = 'local-m'\nwindow_size = 16 # HERE\n",
        [
            "model.window_size = 16 reaches past both ends of sentences of data.max_tokens = 30",
            'use 15 or less, or model.window = "global"',
        ],
    ),
    "window of the preset too large": (
        DATA + "max_tokens = 18\n[model] # HERE\narchitecture = 'luong'\npreset = 'luong2015'\n",
        ["model.window_size = 10", "data.max_tokens = 18", "use 9 or less"],
    ),
    **{
        f"tie all of {architecture}": (
            DATA
            + f"[tokenizer]\nshared = false\n[model]\narchitecture = '{architecture}'\n"
            + "tie_embeddings = 'all' # HERE\n",
            ['model.tie_embeddings = "all" needs one vocabulary', 'model.tie_embeddings = "target"'],
        )
        for architecture in PRESETS
    },
    "tied with unequal widths, recurrent": (
        DATA + "[model]\narchitecture = 'recurrent'\nhidden_width = 300 # HERE\n",
        [
            "model.hidden_width = 300 must equal model.embedding_width = 256",
            'set model.tie_embeddings = "none"',
        ],
    ),
    "tied with unequal widths, luong": (
        DATA + "[model]\narchitecture = 'luong'\nattentional_width = 100 # HERE\n",
        [
            "model.attentional_width = 100 must equal model.embedding_width = 128",
            'set model.tie_embeddings = "none"',
        ],
    ),
    **{
        f"odd halves of {architecture}": (
            DATA
            + f"[model]\narchitecture = '{architecture}'\ntie_embeddings = 'none'\nbidirectional = true\n"
            + "hidden_width = 255 # HERE\n",
            ["model.hidden_width = 255 is odd", "use 256 or model.bidirectional = false"],
        )
        for architecture in ("recurrent", "luong")
    },
    **{
        f"residual around nothing, {architecture}": (
            DATA + f"[model]\narchitecture = '{architecture}'\nlayers = 1\nresidual = true # HERE\n",
            [
                "model.residual = true needs a second layer",
                "set model.layers = 2 or more, or model.residual = false",
            ],
        )
        for architecture in ("recurrent", "luong")
    },
    "sampling characters": (
        DATA + "[tokenizer]\ntype = 'char'\nsampling = 0.1 # HERE\n",
        ["tokenizer.sampling needs subwords; set tokenizer.type to bpe or unigram (it is char)"],
    ),
    "unknown optimizer": (
        DATA + "[training]\noptimizer = 'rmsprop' # HERE\n",
        ['training.optimizer = "rmsprop" is not valid', "'adam', 'adamw', 'muon', 'adadelta' or 'sgd'"],
    ),
    "optimizer of a list": (
        DATA + "[training]\noptimizer = ['sgd'] # HERE\n",
        ['training.optimizer = ["sgd"] is not valid'],
    ),
    "schedule of a table": (
        DATA + "[training]\nschedule = {a = 1} # HERE\n",
        ["training.schedule = "],
    ),
    "unknown training preset": (
        DATA + "[training]\npreset = 'sutskever' # HERE\n",
        ['training.preset = "sutskever" is not valid', "'sutskever2014'"],
    ),
    "training preset of a number": (
        DATA + "[training]\npreset = 2014 # HERE\n",
        ["training.preset = 2014 is not valid"],
    ),
    "no epochs to halve": (
        DATA + "[training]\nhalve_every_epochs = 0 # HERE\n",
        ["training.halve_every_epochs = 0", "greater than 0"],
    ),
    "weights that sum to zero": (
        TWO + "weights = [0, 0.0] # HERE\n",
        ["data.weights sum to zero: no pair would ever be seen; give a corpus a weight"],
    ),
    "weight below zero": (
        TWO + "weights = [1, -0.5] # HERE\n",
        ["data.weights", "greater than or equal to 0"],
    ),
    "weight without end": (TWO + "weights = [1, inf] # HERE\n", ["data.weights", "finite number"]),
    "weight that is none": (TWO + "weights = [1, nan] # HERE\n", ["data.weights"]),
    "too few weights": (
        TWO + "weights = [1] # HERE\n",
        ["data.weights has 1 entries for 2 corpora in data.train"],
    ),
    "weights of one corpus": (
        DATA + "weights = [1, 2] # HERE\n",
        ["data.weights has 2 entries for 1 corpora"],
    ),
    "weights and temperature": (
        TWO + "temperature = 2\nweights = [1, 2] # HERE\n",
        ["data.weights and data.temperature are two ways to say one thing; remove one"],
    ),
    "temperature below zero": (TWO + "temperature = -1 # HERE\n", ["data.temperature = -1", "equal to 0"]),
    "too many tags": (TWO + "tags = ['', '', '<x>'] # HERE\n", ["data.tags has 3 entries for 2 corpora"]),
    **{
        f"tag {tag}": (TWO + f"tags = ['', '{tag}'] # HERE\n", [f'data.tags = "{tag}" cannot be a tag; use'])
        for tag in (
            "back",
            "<a b>",
            "<<a>",
            "<ä>",
            "<>",
            "<s>",
            "</s>",
            "<unk>",
            "<pad>",
            "<0x0A>",
            "<a>,<b>",
        )
    },
    "workers below zero": (TWO + "workers = -1 # HERE\n", ["data.workers = -1"]),
    "workers of a word": (TWO + "workers = 'all' # HERE\n", ["data.workers = "]),
    "no pairs for the tokenizer": (DATA + "[tokenizer]\nsample_pairs = 0 # HERE\n", ["sample_pairs = 0"]),
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
    assert shown.startswith(f"{file}: " if line is None else f"{file}:{line}: ")
    assert caught.value.line == line
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
        ("data.train=[3]", ["data.train = [3]"]),
        ("data.validation=[3]", ["data.validation = [3]"]),
        ("training. sed=3", ["unknown key training.sed", "did you mean seed?"]),
        ("training.learning_rate=true", ["training.learning_rate = true", "other than true or false"]),
        ("training.max_steps=false", ["training.max_steps = false", "other than true or false"]),
        ("training.betas=[false, 0.9]", ["training.betas = [false, 0.9]", "other than true or false"]),
        ("data.weights=[true]", ["data.weights = [true]", "other than true or false"]),
        ("search.batch_tokens=true", ["search.batch_tokens = true"]),
        ("training.threads=100000", ["training.threads = 100000", "1024"]),
        ("search.max_length_factor=1e308", ["1e308", "1000"]),
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


def test_a_line_more_sets_nothing() -> None:
    with pytest.raises(
        UserError, match=r'training\.seed = "2\\nx=3" is not valid; it should be a valid integer'
    ):
        parse_config(DATA, overrides=["training.seed=2\nx=3"])


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
