"""Training that begins with another model, and parameters that are not trained."""

from __future__ import annotations

import json
import shutil
import signal
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import safetensors.torch
import torch
from several import Several, command
from small_models import make
from support import TINY, Nmt, end_state, prepare_folder

from nmt.config_file import load_config
from nmt.data.prepared import load_tokenizers
from nmt.errors import UserError
from nmt.fine_tuning import _first_difference, freeze, resolved
from nmt.model_config import LuongConfig
from nmt.models import build_model
from nmt.training import Trainer

pytestmark = pytest.mark.usefixtures("there")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A trained model, `base`, and another corpus, `news`, to go on with."""
    folder = tmp_path_factory.mktemp("base")
    prepare_folder(folder)
    Nmt(folder)("train", "tiny.toml", "--run", "base", "--set", "tokenizer.vocabulary_size=390")
    for side in ("en", "de"):
        lines = (folder / f"corpus/train.{side}").read_text().split("\n")[:120]
        (folder / f"corpus/news.{side}").write_text("".join(f"{line}\n" for line in lines))
    text = TINY.replace('train = "corpus/train"', 'train = "corpus/news"')
    text = text.replace("vocabulary_size = 400", "sampling = 0.1")
    (folder / "tune.toml").write_text(text.replace("[training]", '[training]\ninitialize_from = "base"'))
    return folder


def weights(model: str | Path) -> dict[str, torch.Tensor]:
    return safetensors.torch.load_file(Path(model) / "model.safetensors")


def tune(run: str, *changes: str, file: str = "tune.toml") -> Any:
    return Nmt(Path())("train", file, "--run", run, *[o for c in changes for o in ("--set", c)])


def test_it_begins_with_the_weights_and_the_vocabulary() -> None:
    """With a rate that moves nothing, the first checkpoint is the model it began with."""
    done = tune("runs/still", "training.learning_rate=1e-30", "training.max_steps=4")
    assert "begins with the weights of base/best" in done.stderr
    assert all(torch.equal(t, weights("base/best")[n]) for n, t in weights("runs/still/last").items())
    sums = [Path(f, "tokenizer.model").read_bytes() for f in ("base/best", "runs/still/last")]
    assert sums[0] == sums[1]
    manifest = json.loads(Path("runs/still/last/manifest.json").read_text())
    base = json.loads(Path("base/best/manifest.json").read_text())
    assert manifest["initialized_from"] == {
        "model": "base/best",
        "step": base["step"],
        "sha256": base["files"]["model.safetensors"],
    }
    config = load_config("runs/still/config.toml").tokenizer
    assert config.vocabulary_size == 390
    assert config.sampling == 0.1
    assert len(load_tokenizers(Path("runs/still/last"))[0]) == 390


@pytest.mark.slow
def test_it_goes_on_from_its_own_checkpoints_without_the_model(tmp_path: Path) -> None:
    """Stopped, the model removed, continued: the end of a run that nothing stopped, its origin still told."""
    shutil.copytree("base", tmp_path / "model", symlinks=True)
    begins = f"training.initialize_from={tmp_path}/model"
    changes = (begins, "training.log_every=1", "training.ema=0.9")
    tune("runs/unstopped", *changes)
    nmt = Nmt(Path())
    arguments = ["train", "tune.toml", "--run", "runs/stopped", *[o for c in changes for o in ("--set", c)]]
    with nmt.start(*arguments, stderr=-1) as process:
        assert process.stderr is not None
        for line in process.stderr:
            if b"step 6 " in line:
                process.send_signal(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL
    shutil.rmtree(tmp_path / "model")
    nmt(*arguments)
    assert end_state(Path("runs/stopped")) == end_state(Path("runs/unstopped"))
    told = [
        json.loads(Path(f"runs/{run}/last/manifest.json").read_text()) for run in ("stopped", "unstopped")
    ]
    assert told[0]["initialized_from"] == told[1]["initialized_from"]
    assert "no such model" in nmt.error(*arguments[:3], "runs/other", *arguments[4:])
    assert "no such model" in nmt.error(*arguments, "--restart")


def test_the_model_may_move_once_a_run_has_begun(tmp_path: Path) -> None:
    """Elsewhere it must be the same; where none is, none is needed."""
    shutil.copytree("base", tmp_path / "model", symlinks=True)
    tune("runs/moved", "training.max_steps=4", f"training.initialize_from={tmp_path}/model")
    (tmp_path / "model").rename(tmp_path / "elsewhere")
    here = f"training.initialize_from={tmp_path}/elsewhere"
    done = tune("runs/moved", "training.max_steps=5", here)
    assert f'training.initialize_from: "{tmp_path}/model" -> "{tmp_path}/elsewhere"' in done.stderr
    assert load_config("runs/moved/config.toml").training.initialize_from == f"{tmp_path}/elsewhere"
    shutil.rmtree(tmp_path / "elsewhere")
    for number, now in enumerate((here, "training.initialize_from=gone"), start=6):
        assert f"finished: {number} steps" in tune("runs/moved", f"training.max_steps={number}", now).stderr
    origin = json.loads(Path("runs/moved/last/manifest.json").read_text())["initialized_from"]
    assert origin["model"] == f"{tmp_path}/model/best"
    options = ["--run", "runs/moved", "--set", "training.max_steps=8", "--set"]
    said = Nmt(Path()).error("train", "tune.toml", *options, "training.initialize_from=runs/moved")
    assert 'training.initialize_from: "gone" -> "runs/moved" (another model than this run began with)' in said
    # `tiny.toml` names none.
    assert "training.initialize_from: " in Nmt(Path()).error(
        "train", "tiny.toml", *options, "training.seed=1"
    )


def test_it_is_learning_that_goes_on() -> None:
    """A model of 12 steps that begins again with what it had has a lower loss than one that begins anew."""
    tune("runs/on", "training.learning_rate=1e-4", "training.max_steps=4")
    tune("runs/anew", "training.learning_rate=1e-4", "training.max_steps=4", file="tiny.toml")
    losses = [
        json.loads(Path(f"runs/{run}/last/manifest.json").read_text())["scores"]["loss"]
        for run in ("on", "anew")
    ]
    assert losses[0] < losses[1] - 0.5


def test_two_processes_begin_with_the_same_weights() -> None:
    changes = ["training.accumulation=2", "training.max_steps=4", "training.learning_rate=1e-30"]
    options = [o for c in changes for o in ("--set", c)]
    ended = Several(Path(), command("train", "tune.toml", "--run", "runs/two", *options)).ended()
    assert ended.codes == [0, 0], ended.said
    assert all(torch.equal(t, weights("base/best")[n]) for n, t in weights("runs/two/last").items())


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (
            ["model.width=64"],
            "model.width = 64, and the model of training.initialize_from has 32 (base/best)",
        ),
        (["model.heads=4"], "model.heads = 4, and the model of training.initialize_from has 2"),
        (["model.encoder_layers=2"], "model.encoder_layers = 2, and"),
        (["model.norm=pre"], "model.norm = 'pre', and the model of training.initialize_from has 'post'"),
        (["model.decoder_feed_forward_width=32"], "model.decoder_feed_forward_width = 32, and"),
        (["tokenizer.vocabulary_size=400"], "tokenizer.vocabulary_size = 400, and the model of training."),
        (["tokenizer.type=unigram"], "tokenizer.type = 'unigram', and the model"),
        (["tokenizer.shared=false"], "remove"),
        (["training.initialize_from=nothing"], "nothing: no such model"),
        (["training.initialize_from=tiny.toml"], "tiny.toml: is a file"),
        (["training.initialize_from=corpus"], "corpus: holds no model"),
        (['data.tags=["<back>"]'], 'data.tags: "<back>" is not in the vocabulary of base/best'),
        (['training.freeze=["encodr"]'], '"encodr" is the name of no parameter; did you mean encoder'),
        (['training.freeze=["zzz"]'], "known: decoder, embeddings, encoder, and inside them"),
        (['training.freeze=["encoder", "decoder", "embeddings"]'], "leaves no parameter to train"),
    ],
)
def test_what_does_not_fit_is_one_line(changes: list[str], said: str) -> None:
    options = [o for c in changes for o in ("--set", c)]
    text = Nmt(Path()).error("train", "tune.toml", "--run", "runs/wrong", *options)
    assert said in text
    assert not list(Path("runs").glob("wrong/checkpoints/*"))


def test_another_architecture(tmp_path: Path) -> None:
    text = Path("tune.toml").read_text()
    begin, end = text.index("[model]"), text.index("[training]")
    Path("luong.toml").write_text(text[:begin] + '[model]\narchitecture = "luong"\n\n' + text[end:])
    said = Nmt(Path()).error("train", "luong.toml", "--run", "runs/wrong")
    assert "model.architecture = 'luong', and the model of training.initialize_from has 'transformer'" in said


LUONG: dict[str, Any] = dict(
    architecture="luong", embedding_width=8, hidden_width=8, attentional_width=8, layers=1, dropout=0.0
)


@pytest.mark.parametrize("fed", [True, False])
def test_weights_of_luong_mean_something_else_with_other_first_weights(fed: bool) -> None:
    """Where the attentional vector is fed back: by how much is part of `initialization`."""
    ways = ("paper", "scaled")
    mine, theirs = (LuongConfig(**LUONG, initialization=way, input_feeding=fed) for way in ways)
    models = [build_model(config, 20, 20).eval() for config in (mine, theirs)]
    models[1].load_state_dict(models[0].state_dict())
    source_BS = torch.arange(4, 10)[None]
    first, second = (model.decode(source_BS, model.encode(source_BS, source_BS != 0)) for model in models)
    assert torch.equal(first, second) == (not fed)
    assert _first_difference(mine, theirs) == ("initialization" if fed else None)


def test_dropout_and_rates_may_be_others() -> None:
    config = load_config("tune.toml", ["model.dropout=0.5", "model.decoder_feed_forward_width=64"])
    assert resolved(config, Path("runs/none")).tokenizer.vocabulary_size == 390
    without = load_config("tiny.toml")
    assert resolved(without, Path("runs/none")) is without


def test_a_run_that_would_begin_with_itself(tmp_path: Path) -> None:
    shutil.copytree("base", tmp_path / "own", symlinks=True)
    options = ["--run", tmp_path / "own", "--restart", "--set", f"training.initialize_from={tmp_path}/own"]
    said = Nmt(Path()).error("train", "tune.toml", *options)
    assert "names this run, which --restart moves aside" in said
    assert (tmp_path / "own/best/model.safetensors").exists()


def test_a_damaged_model(tmp_path: Path) -> None:
    shutil.copytree("base/best", tmp_path / "model")
    file = tmp_path / "model/model.safetensors"
    content = bytearray(file.read_bytes())
    content[-3] ^= 1
    file.write_bytes(content)
    options = ["--set", f"training.initialize_from={tmp_path}/model"]
    said = Nmt(Path()).error("train", "tune.toml", "--run", "runs/wrong", *options)
    assert "model.safetensors: is not the file that was saved" in said


def test_beside_the_configuration(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    monkeypatch.chdir(tmp_path)
    assert load_config(folder / "tune.toml").training.initialize_from == str(folder / "base")


# Freezing


def test_frozen_parameters_stay_and_cost_nothing() -> None:
    frozen = ("encoder.", "embeddings.")
    done = tune("runs/frozen", 'training.freeze=["encoder", "embeddings"]')
    begun, ended = weights("base/best"), weights("runs/frozen/last")
    for name, tensor in ended.items():
        assert torch.equal(tensor, begun[name]) == name.startswith(frozen), name
    trained = sum(t.numel() for n, t in ended.items() if not n.startswith(frozen))
    total = sum(t.numel() for t in ended.values())
    assert f"{total:,} parameters" in done.stderr
    assert f"; {trained:,} of them trained;" in done.stderr
    state = torch.load("runs/frozen/last/training_state.pt", weights_only=True)
    assert len(state["optimizer"]["state"]) == sum(not n.startswith(frozen) for n in ended)
    assert "of them trained" not in tune("runs/all", "training.max_steps=1").stderr


def test_frozen_parameters_get_no_gradient() -> None:
    config = resolved(load_config("tune.toml", ['training.freeze=["decoder.0.feed_forward"]']), Path("x"))
    run: Any = SimpleNamespace(folder=Path("runs/gradient"), checkpoints=list)
    trainer = Trainer(config, run, lambda event: None)
    trainer.gradient.of_step([trainer.stream.next()], [1], 100)
    for name, parameter in trainer.model.named_parameters():
        assert (parameter.grad is None) == name.startswith("decoder.0.feed_forward."), name


@pytest.mark.parametrize(
    ("name", "prefix", "frozen"),
    [
        ("post-learned", "encoder.1", "encoder.1."),
        ("pre-sinusoidal", "encoder_norm", "encoder_norm."),
        ("pre-sinusoidal", "decoder.0.self_attention.input.weight", "decoder.0.self_attention.input.weight"),
        # Tied: one matrix by either name.
        ("pre-sinusoidal", "embeddings.output", "embeddings.target.weight"),
        ("bahdanau-tied", "attention", "attention."),
        ("luong-general-global-fed", "encoder", "encoder."),
        ("recurrent-lstm", "decoder", "decoder."),
    ],
)
def test_names_end_at_dots(name: str, prefix: str, frozen: str) -> None:
    model = make(name)
    freeze(model, (prefix,))
    for full, parameter in model.named_parameters():
        assert parameter.requires_grad == (not full.startswith(frozen)), full
    with pytest.raises(UserError, match="is the name of no parameter"):
        freeze(model, (prefix[:-1],))


@pytest.mark.parametrize(
    "name", ["pre-sinusoidal", "bahdanau-tied", "luong-general-global-fed", "recurrent-lstm"]
)
@pytest.mark.parametrize("part", ["embeddings", "encoder"])
def test_the_gradient_of_the_rest_is_what_it_was(name: str, part: str) -> None:
    found = []
    for frozen in (False, True):
        model = make(name).train()
        if frozen:
            freeze(model, (part,))
        source_BS = torch.randint(4, 20, (6, 9), generator=torch.Generator().manual_seed(1))
        target_BT = torch.randint(4, 19, (6, 7), generator=torch.Generator().manual_seed(2))
        torch.manual_seed(3)
        hidden = model.decode(target_BT, model.encode(source_BS, source_BS != 0))
        model.project(hidden).square().sum().backward()
        found.append({n: p.grad for n, p in model.named_parameters() if not n.startswith(part + ".")})
        if frozen:
            assert all(p.grad is None for n, p in model.named_parameters() if n.startswith(part + "."))
    for key, grad in found[0].items():
        torch.testing.assert_close(found[1][key], grad)
