"""What of a configuration may change when a run goes on, and that it then computes what it would have."""

from __future__ import annotations

import json
import shutil
import signal
import tomllib
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import safetensors.torch
import torch
from support import Nmt, prepare_folder

from nmt.changes import Changes
from nmt.config import SECTIONS, Config
from nmt.config_file import load_config
from nmt.errors import UserError
from nmt.model_config import MODEL_SECTIONS
from nmt.run import Run
from nmt.training import train as train_run

pytestmark = pytest.mark.usefixtures("there")

Event = dict[str, Any]

# Of each key but those of [model] another value, as TOML.
OTHERS = {
    "data.train": '"elsewhere/train"',
    "data.validation": '"elsewhere/validation"',
    "data.test": '"corpus/test"',
    "data.source_language": '"fr"',
    "data.target_language": '"fr"',
    "data.weights": "[2.0]",
    "data.temperature": "5.0",
    "data.tags": '["<a>"]',
    "data.alignments": '"corpus/links"',
    "data.alignment_words": '"punctuation"',
    "data.workers": "1",
    "data.max_words": "10",
    "data.max_characters": "99",
    "data.max_tokens": "100",
    "data.max_ratio": "3.0",
    "data.drop_copies": "true",
    "data.drop_duplicates": "true",
    "data.drop_overlap": "true",
    "tokenizer.type": '"unigram"',
    "tokenizer.vocabulary_size": "500",
    "tokenizer.shared": "false",
    "tokenizer.character_coverage": "1.0",
    "tokenizer.sample_pairs": "7",
    "tokenizer.sampling": "0.1",
    "training.preset": '"vaswani2017"',
    "training.seed": "2",
    "training.max_steps": "13",
    "training.max_epochs": "9",
    "training.batch_tokens": "513",
    "training.accumulation": "2",
    "training.optimizer": '"adamw"',
    "training.learning_rate": "0.001",
    "training.schedule": '"constant"',
    "training.warmup_steps": "9",
    "training.halve_after_epochs": "1.0",
    "training.halve_every_epochs": "2.0",
    "training.betas": "[0.8, 0.9]",
    "training.rho": "0.9",
    "training.epsilon": "1e-7",
    "training.weight_decay": "0.1",
    "training.loss_per": '"sentence"',
    "training.label_smoothing": "0.2",
    "training.z_loss": "0.1",
    "training.r_drop": "1.0",
    "training.guided_alignment": "0.05",
    "training.guided_layer": "1",
    "training.guided_head": "1",
    "training.ema": "0.9",
    "training.clip_norm": "1.0",
    "training.precision": '"bfloat16"',
    "training.max_nonfinite": "3",
    "training.activation_checkpointing": "true",
    "training.shard": "true",
    "training.initialize_from": '"runs/other"',
    "training.freeze": '["encoder"]',
    "training.device": '"cuda"',
    "training.threads": "2",
    "training.log_every": "1",
    "training.validate_every": "3",
    "training.tensorboard": "true",
    "training.keep_best": "2",
    "training.keep_last": "3",
    "training.metric": '"loss"',
    "training.patience": "5",
    "training.validation_beam_size": "2",
    "search.beam_size": "4",
    "search.length_penalty": "0.5",
    "search.normalization": '"average"',
    "search.coverage_penalty": "0.1",
    "search.no_repeat_ngram": "3",
    "search.beam_groups": "2",
    "search.diversity": "0.1",
    "search.min_length_factor": "0.1",
    "search.min_length_offset": "1",
    "search.max_length_factor": "2.0",
    "search.max_length_offset": "9",
    "search.max_source_tokens": "50",
    "search.batch_tokens": "100",
    "search.precision": '"bfloat16"',
    "search.ensemble_by": '"log-probability"',
    "search.tag": '"<a>"',
}
MAY = {
    *("data.train", "data.validation", "data.test", "data.workers", "training.preset", "training.max_steps"),
    *("training.max_epochs", "training.learning_rate", "training.warmup_steps", "training.clip_norm"),
    *("training.max_nonfinite", "training.activation_checkpointing", "training.shard", "training.device"),
    *("training.threads", "training.log_every", "training.validate_every", "training.tensorboard"),
    *("training.keep_best", "training.keep_last", "training.patience", "search.beam_size"),
    *("search.beam_groups", "search.diversity", "search.batch_tokens", "search.ensemble_by"),
    # Of one corpus, adam and its schedule: nothing reads them.
    *("data.temperature", "training.rho", "training.halve_after_epochs", "training.halve_every_epochs"),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("changes")
    prepare_folder(folder)
    return folder


def settings(*changes: str) -> Config:
    return load_config(Path("tiny.toml"), ["training.schedule=constant", *changes])


# Key by key


def test_every_key_is_thought_of() -> None:
    keys = {f"{name}.{key}" for name, section in SECTIONS.items() for key in section.model_fields}
    assert keys == OTHERS.keys()
    assert keys > MAY


@pytest.mark.parametrize("key", OTHERS)
def test_what_updates_depend_on_may_not_change(key: str) -> None:
    before = load_config(Path("tiny.toml"))
    section, name = key.split(".")
    value = tomllib.loads(f"value = {OTHERS[key]}")["value"]
    value = tuple(value) if isinstance(value, list) else value
    # Not by --set: presets, and what goes with what, would change other keys as well.
    other = getattr(before, section).model_copy(update={name: value})
    now = before.model_copy(update={section: other})
    changes = Changes.between(before, now)
    (row,) = changes.allowed or changes.refused
    assert row.startswith(f"{key}: ")
    assert bool(changes.allowed) == (key in MAY)


@pytest.mark.filterwarnings("ignore:Pydantic serializer")
@pytest.mark.parametrize("architecture", MODEL_SECTIONS)
def test_no_key_of_the_model_may_change_but_its_presets_name(architecture: str) -> None:
    options = ["model.preset=tiny", f"model.architecture={architecture}"]
    text = Path("tiny.toml").read_text()
    head, _, tail = text.partition("[model]")
    Path("other.toml").write_text(f"{head}[model]\n{tail[tail.index('[training]') :]}")
    before = load_config(Path("other.toml"), options)
    for name in type(before.model).model_fields:
        now = before.model_copy(update={"model": before.model.model_copy(update={name: "other"})})
        changes = Changes.between(before, now)
        assert bool(changes.allowed) == (name == "preset"), name
        assert bool(changes.refused) == (name != "preset"), name


def test_corpora_are_as_many_and_have_links_where_they_had() -> None:
    before = settings('data.train=["a", "b"]', "training.guided_alignment=0.1", 'data.alignments=["", "l"]')
    for same in (('data.train=["c", "d"]', 'data.alignments=["", "m"]'), ("data.alignments=['', 'n']",)):
        now = settings(
            *('data.train=["a", "b"]', "training.guided_alignment=0.1", 'data.alignments=["", "l"]', *same)
        )
        assert not Changes.between(before, now).refused
    now = settings('data.train=["a", "b"]', "training.guided_alignment=0.1", 'data.alignments=["l", ""]')
    assert Changes.between(before, now).refused
    assert Changes.between(settings(), settings('data.train=["corpus/train", "b"]')).refused


# What a run then computes


def train(
    run: str, config: Config, stop: int = 0, observe: Callable[[Event], None] = lambda event: None
) -> list[Event]:
    """Train as `nmt train` does, up to a step; the events."""
    seen: list[Event] = []
    interrupt: Any = SimpleNamespace(signal=None)

    class Fake:
        def __enter__(self) -> Any:
            return interrupt

        def __exit__(self, *_: object) -> None:
            pass

    def both(event: Event) -> None:
        seen.append(event)
        if event["event"] in ("train", "first step") and event["step"] == stop:
            interrupt.signal = signal.SIGTERM
        observe(event)

    with pytest.MonkeyPatch.context() as patch, Run.open(Path(run), config) as opened:
        patch.setattr("nmt.training.Interrupt", Fake)
        outcome = train_run(config, opened, both)
        seen.append({"event": "outcome", "text": outcome.reason})
    return seen


def weights(run: str) -> torch.Tensor:
    found = safetensors.torch.load_file(Path(run) / "last/model.safetensors")
    return torch.cat([tensor.flatten() for tensor in found.values()])


def texts(events: list[Event], kind: str) -> list[str]:
    return [event["text"] for event in events if event["event"] == kind]


def metrics(run: str, kind: str) -> list[Event]:
    rows = [json.loads(line) for line in (Path(run) / "metrics.jsonl").read_text().splitlines()]
    return [row for row in rows if row["event"] == kind]


@pytest.fixture(scope="module")
def eight(folder: Path) -> torch.Tensor:
    """The weights after 8 steps that nothing stopped."""
    Nmt(folder)(
        *("train", "tiny.toml", "--run", "runs/eight"),
        *("--set", "training.schedule=constant", "--set", "training.max_steps=8"),
    )
    return weights(str(folder / "runs/eight"))


def test_with_more_steps_a_finished_run_goes_on(eight: torch.Tensor) -> None:
    assert texts(train("runs/four", settings("training.max_steps=4")), "outcome") == ["4 steps done"]
    said = train("runs/four", settings("training.max_steps=8"))
    assert texts(said, "outcome") == ["8 steps done"]
    assert "changed since step 4: training.max_steps: 4 -> 8" in texts(said, "status")
    assert torch.equal(weights("runs/four"), eight)
    assert load_config(Path("runs/four/config.toml")) == settings("training.max_steps=8")
    (text,) = texts(train("runs/four", settings("training.max_steps=8")), "outcome")
    assert "nothing to do" in text
    with pytest.raises(UserError, match="unread"):
        train("runs/four", settings("training.max_steps=9"), observe=_read_no_more)
    # Lower than where it stands: it is finished all the same.
    (text,) = texts(train("runs/four", settings("training.max_steps=5")), "outcome")
    assert "nothing to do" in text


def _read_no_more(event: Event) -> None:
    if event["event"] == "preflight":
        assert event["continues_from"] == 8
        raise UserError("unread")


def test_an_end_that_is_past_is_refused() -> None:
    train("runs/past", settings("training.max_steps=8"), stop=6)
    with pytest.raises(
        UserError, match=r"training\.max_steps = 5 is not after step 6, where this run stands"
    ):
        train("runs/past", settings("training.max_steps=5"))
    epochs = settings("training.max_steps=40", "training.log_every=1")
    (batches,) = [e["batches_an_epoch"] for e in train("runs/past", epochs, stop=39) if "batches" in str(e)]
    assert batches < 39
    with pytest.raises(UserError, match=r"training\.max_epochs = 1 are done at step 39"):
        train("runs/past", settings("training.max_steps=40", "training.max_epochs=1"))


def test_the_end_may_be_where_it_was_validated() -> None:
    train("runs/validated", settings("training.max_steps=8", "training.log_every=1"), stop=5)
    shutil.rmtree("runs/validated/checkpoints/step-00000005")
    end = settings("training.max_steps=4", "training.log_every=1")
    (text,) = texts(train("runs/validated", end), "outcome")
    assert text.startswith("4 steps done (nothing to do")


@pytest.mark.parametrize("step", [4, 6])
def test_the_end_may_be_where_it_stands(step: int) -> None:
    """It is validated and finished there, as if nothing had stopped it; at 4 a validation was stopped."""
    train(f"runs/here-{step}", settings("training.max_steps=8", "training.log_every=1"), stop=step)
    end = settings(f"training.max_steps={step}", "training.log_every=1")
    (text,) = texts(train(f"runs/here-{step}", end), "outcome")
    assert text.startswith(f"{step} steps done")
    train(f"runs/straight-{step}", end)
    assert torch.equal(weights(f"runs/here-{step}"), weights(f"runs/straight-{step}"))
    found, expected = (
        [(row["step"], row["bleu"], row["best"]) for row in metrics(f"runs/{name}-{step}", "validation")]
        for name in ("here", "straight")
    )
    assert found == expected
    (text,) = texts(train(f"runs/here-{step}", end), "outcome")
    assert "nothing to do" in text


@pytest.mark.parametrize("schedule", ["cosine", "linear"])
def test_schedules_that_end_at_zero_have_no_later_end(schedule: str) -> None:
    run, given = f"runs/{schedule}", f"training.schedule={schedule}"
    train(run, settings(given, "training.max_steps=2"))
    with pytest.raises(UserError) as caught:
        train(run, settings(given, "training.max_steps=4"))
    assert f"the {schedule} schedule goes down to 0 at the old end" in str(caught.value)
    assert "training.initialize_from" in str(caught.value)
    assert "training.max_steps: 2 -> 4" in str(caught.value)
    (text,) = texts(train(run, settings(given, "training.max_steps=2", "training.max_epochs=9")), "outcome")
    assert "nothing to do" in text


def test_epochs_may_be_more() -> None:
    short = settings("training.max_steps=1000", "training.max_epochs=1", "training.batch_tokens=2000")
    longer = settings("training.max_steps=1000", "training.max_epochs=2", "training.batch_tokens=2000")
    assert texts(train("runs/epochs", short), "outcome") == ["1 epochs done"]
    assert texts(train("runs/epochs", longer), "outcome") == ["2 epochs done"]
    train("runs/two-epochs", longer)
    assert torch.equal(weights("runs/epochs"), weights("runs/two-epochs"))


def test_patience_may_be_more() -> None:
    impatient = ("training.learning_rate=1e-30", "training.validate_every=1")
    said = train("runs/patience", settings(*impatient, "training.patience=2"))
    assert "did not improve in 2 validations" in texts(said, "outcome")[0]
    said = train("runs/patience", settings(*impatient, "training.patience=4"))
    assert "did not improve in 4 validations" in texts(said, "outcome")[0]
    assert metrics("runs/patience", "validation")[-1]["step"] == 5


def test_what_changes_no_update_changes_no_weight(eight: torch.Tensor) -> None:
    free = [
        *("training.log_every=1", "training.keep_last=1", "training.keep_best=2", "training.patience=7"),
        *("training.max_nonfinite=3", "training.validate_every=3", "data.workers=0", "search.beam_size=3"),
        *("training.activation_checkpointing=true", "search.batch_tokens=100", "training.device=cpu"),
    ]
    train("runs/free", settings("training.max_steps=8"), stop=3)
    now = settings("training.max_steps=8", *free)
    (text,) = [t for t in texts(train("runs/free", now), "status") if t.startswith("changed since step 3: ")]
    for change in free:
        assert change.split("=")[0] in text
    assert text.endswith(" (results may differ by rounding)")
    assert torch.equal(weights("runs/free"), eight)
    assert load_config(Path("runs/free/config.toml")) == now
    assert load_config(Path("runs/free/last/config.toml")) == now
    assert [row["step"] for row in metrics("runs/free", "validation")] == [6, 8]
    assert "changed" not in json.loads(Path("runs/free/last/manifest.json").read_text())


def test_a_lower_rate_is_written_down(eight: torch.Tensor) -> None:
    """As the message about losses that are not finite says; also where the process then dies."""
    train("runs/rate", settings("training.max_steps=8"), stop=3)
    now = settings("training.max_steps=8", "training.learning_rate=1e-4", "training.clip_norm=0.5")

    def die(event: Event) -> None:
        if event["event"] == "validation":  # before the first checkpoint
            raise RuntimeError("killed")

    with pytest.raises(RuntimeError, match="killed"):
        train("runs/rate", now, observe=die)
    train("runs/rate", now)
    (row,) = metrics("runs/rate", "warning")
    text = "after step 3: training.learning_rate: 0.005 -> 0.0001; training.clip_norm: 0.0 -> 0.5"
    assert row["text"].startswith(text)
    assert [event["learning_rate"] for event in metrics("runs/rate", "train")] == [0.00375, 1e-4]
    assert json.loads(Path("runs/rate/last/manifest.json").read_text())["changed"] == [text]
    assert not torch.equal(weights("runs/rate"), eight)


# Corpora that have moved


def test_a_corpus_at_another_place_is_the_same(eight: torch.Tensor) -> None:
    train("runs/moved", settings("training.max_steps=8"), stop=3)
    shutil.copytree("corpus", "moved")
    there = ("data.train=moved/train", "data.validation=moved/validation")
    assert texts(train("runs/moved", settings("training.max_steps=8", *there)), "outcome") == ["8 steps done"]
    assert torch.equal(weights("runs/moved"), eight)
    assert load_config(Path("runs/moved/config.toml")).data.train == "moved/train"
    # Finished it is compared too, where it is said to be elsewhere.
    (text,) = texts(train("runs/moved", settings("training.max_steps=8")), "outcome")
    assert "nothing to do" in text
    with Path("moved/train.en").open("a") as source, Path("moved/train.de").open("a") as target:
        source.write("One more.\n")
        target.write("Noch einer.\n")
    shutil.copytree("moved", "changed")
    with pytest.raises(UserError, match=r"the training corpus is not the one .* \(changed/train\.en"):
        train("runs/moved", settings("training.max_steps=8", "data.train=changed/train"))


def test_another_test_set_asks_for_no_corpus() -> None:
    """Where nothing is dropped for it: a finished run's corpus may be gone."""
    shutil.copytree("corpus", "leaving")
    here = ("training.max_steps=2", "data.train=leaving/train")
    train("runs/tested", settings(*here))
    shutil.rmtree("leaving")
    (text,) = texts(train("runs/tested", settings(*here, "data.test=corpus/test")), "outcome")
    assert "nothing to do" in text
    with pytest.raises(UserError, match="gone/train"):
        train("runs/tested", settings(here[0], "data.train=gone/train"))


def test_a_changed_test_set_is_refused_where_its_lines_are_dropped() -> None:
    shutil.copytree("corpus", "dropping")
    options = ("data.drop_overlap=true", "training.max_steps=8", "data.test=dropping/test")
    train("runs/dropping", settings(*options), stop=3)
    shutil.copytree("dropping", "dropping-2")
    train("runs/dropping", settings(*options[:2], "data.test=dropping-2/test"), stop=4)
    first = Path("dropping/train.en").read_text().partition("\n")[0]
    text = Path("dropping/test.en").read_text()
    Path("dropping/test.en").write_text(f"{first}\n{text.partition(chr(10))[2]}")
    with pytest.raises(
        UserError, match=r"the test corpus is not the one .* \(dropping/test\.en, dropping-2/"
    ):
        train("runs/dropping", settings(*options))
