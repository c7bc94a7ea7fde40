"""Guided alignment from the command line: a head learns the links it is given, and `nmt align` reads it."""

from __future__ import annotations

import json
import random
import signal
import subprocess
from pathlib import Path

import pytest
from support import TINY, WORD_TASK, WORDS, Nmt, end_state, prepare_folder

MODEL = """
[model]
architecture = "transformer"
encoder_layers = 1
decoder_layers = 2
width = 32
feed_forward_width = 64
heads = 2
norm = "pre"
dropout = 0.0
"""
GUIDED = ["--set", "training.guided_alignment=0.5"]


def write_copies(folder: Path, split: str, count: int, seed: int) -> None:
    """Sequences to be copied: word i comes from word i."""
    chance = random.Random(seed)
    lines = [chance.sample(WORDS, chance.randint(2, 7)) for _ in range(count)]
    links = [" ".join(f"{i}-{i}" for i in range(len(line))) for line in lines]
    (folder / f"{split}.in").write_text("".join(f"{' '.join(line)}\n" for line in lines))
    (folder / f"{split}.out").write_text("".join(f"{' '.join(line)}\n" for line in lines))
    (folder / f"{split}.align").write_text("".join(f"{line}\n" for line in links))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`plain` and `guided`, trained alike but for the links."""
    folder = tmp_path_factory.mktemp("guided")
    for split, count in (("train", 1500), ("validation", 20), ("test", 100)):
        write_copies(folder, split, count, seed=count)
    (folder / "task.toml").write_text(WORD_TASK + MODEL)
    steps = ["--set", "training.max_steps=60", "--set", "training.learning_rate=1e-2"]
    steps += ["--set", "training.warmup_steps=10"]
    nmt = Nmt(folder)
    nmt("train", "task.toml", "--run", "plain", *steps)
    nmt("train", "task.toml", "--run", "guided", *steps, *GUIDED, "--set", 'data.alignments="train.align"')
    return folder


def aligned(folder: Path, model: str, *options: str) -> dict[str, object]:
    gold = ["--gold", "test.align", "--json"]
    found = json.loads(Nmt(folder)("align", model, "test.in", "test.out", *gold, *options).stdout)
    assert isinstance(found, dict)
    return found


def test_the_guided_head_aligns_as_it_was_told(folder: Path) -> None:
    guided, plain = aligned(folder, "guided"), aligned(folder, "plain", "--layer", "1", "--head", "1")
    assert (guided["layer"], guided["head"], guided["shift"]) == (1, 1, False)
    assert float(str(guided["aer"])) < 0.15
    assert float(str(plain["aer"])) > 0.4


def test_the_guided_head_is_what_is_read_unless_another_is_asked_for(folder: Path) -> None:
    nmt = Nmt(folder)
    assert aligned(folder, "guided", "--layer", "1", "--head", "1") == aligned(folder, "guided")
    mean = aligned(folder, "guided", "--layer", "mean")
    assert (mean["layer"], mean["head"]) == (None, None)
    assert (aligned(folder, "plain")["layer"], aligned(folder, "plain")["head"]) == (None, None)
    assert aligned(folder, "guided", "--shift")["shift"] is True
    record = json.loads(nmt("translate", "guided", "test.in", "--format", "jsonl", "--alignment").lines[0])
    text = record["translations"][0]["text"]
    (folder / "own.in").write_text(record["source"] + "\n")
    (folder / "own.out").write_text(text + "\n")
    assert nmt("align", "guided", "own.in", "own.out").lines == [record["translations"][0]["alignment"]]
    averaged = nmt("average", "guided", "--last", "1", "--output", "averaged")
    assert averaged.code == 0
    assert aligned(folder, "averaged") == aligned(folder, "guided")


def test_both_directions_read_what_each_was_trained_for(folder: Path) -> None:
    both = aligned(folder, "guided", "--reverse", "plain")
    directions = both["directions"]
    assert isinstance(directions, dict)
    assert (directions["forward"]["layer"], directions["forward"]["head"]) == (1, 1)
    assert (directions["reverse"]["layer"], directions["reverse"]["head"]) == (None, None)


@pytest.mark.slow
def test_goes_on_after_a_kill(tmp_path: Path) -> None:
    prepare_folder(tmp_path)
    (tmp_path / "tiny.toml").write_text(TINY)
    nmt = Nmt(tmp_path)
    arguments = ["train", "tiny.toml", *GUIDED, "--set", 'data.alignments="corpus/train.align"']
    arguments += ["--set", "data.alignment_words=punctuation"]
    nmt(*arguments, "--run", "runs/whole")
    with nmt.start(*arguments, "--run", "runs/killed", stderr=subprocess.PIPE) as process:
        assert process.stderr is not None
        for line in process.stderr:
            if b"step 6 " in line:
                process.send_signal(signal.SIGKILL)
                break
    nmt(*arguments, "--run", "runs/killed")
    assert end_state(tmp_path / "runs/killed") == end_state(tmp_path / "runs/whole")
    # Other links are another text.
    lines = (tmp_path / "corpus/train.align").read_text().split("\n")
    (tmp_path / "corpus/train.align").write_text("\n".join(["", *lines[1:]]))
    message = nmt.error(*arguments, "--set", "training.max_steps=20", "--run", "runs/whole")
    assert "max_steps" in message or "train.align" in message


def test_what_is_wrong_is_said_in_one_line(tmp_path: Path) -> None:
    prepare_folder(tmp_path)
    nmt = Nmt(tmp_path)
    links = ["--set", 'data.alignments="corpus/train.align"']
    message = nmt.error("train", "tiny.toml", *links)
    assert "data.alignments are given and training.guided_alignment" in message
    message = nmt.error("train", "tiny.toml", *GUIDED, *links, "--run", "runs/blank")
    assert "corpus/train.align:" in message
    assert "is outside" in message
    assert "set data.alignment_words" in message


@pytest.mark.slow
def test_on_the_offline_corpus(tmp_path: Path) -> None:
    """AER against the corpus's own links: the guided head's well below the best that grows by itself."""
    nmt = Nmt(tmp_path)
    nmt("data", "synthesize", "--output", "corpus", "--train", "6000", "--held-out", "300")
    text = TINY.split("[tokenizer]")[0] + "[tokenizer]\nvocabulary_size = 1000\n"
    text += MODEL.replace("width = 32", "width = 64").replace("encoder_layers = 1", "encoder_layers = 2")
    text += '[training]\nmax_steps = 250\nbatch_tokens = 1024\nlearning_rate = 1e-2\nschedule = "cosine"\n'
    text += "warmup_steps = 40\nvalidate_every = 250\nthreads = 1\n"
    (tmp_path / "offline.toml").write_text(text)
    links = ["data.alignments=corpus/train.align", "data.alignment_words=punctuation"]
    links += ["training.guided_layer=2"]
    nmt("train", "offline.toml", "--run", "plain")
    nmt("train", "offline.toml", "--run", "guided", *GUIDED, *(f"--set={one}" for one in links))

    def rate(model: str, *options: str) -> float:
        corpus = ["corpus/test.en", "corpus/test.de", "--gold", "corpus/test.align"]
        found = nmt("align", model, *corpus, "--words", "punctuation", "--json", *options)
        return float(json.loads(found.stdout)["aer"])

    assert rate("guided") < 0.5
    assert rate("guided") < rate("plain", "--best") - 0.15
