"""Every step of the recipe multi30k, on a small mirror; the second time nothing is done again.

The mirror has the offline corpus under the names of Multi30k, and registry files of its own. Its "French" is
German spelled otherwise: the recipe does not look.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import re
import statistics
import subprocess
from collections.abc import Iterable
from pathlib import Path

import pytest

from nmt.data.corpus import read_lines
from nmt.data.synthetic import generate
from recipes import make, workshop

SPLITS = {"train": 300, "val": 12, "test_2016_flickr": 10, "test_2017_flickr": 10, "test_2017_mscoco": 10}
TESTS = "test_2016_flickr test_2017_mscoco"
SHORT = (
    "training.max_steps=4 training.validate_every=2 training.log_every=2 training.warmup_steps=2 "
    "training.batch_tokens=512 tokenizer.vocabulary_size=600 model.encoder_layers=1 model.decoder_layers=1 "
    "model.width=32 model.feed_forward_width=64 model.heads=2 search.max_length_offset=1"
)


def put(file: Path, lines: Iterable[str]) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(gzip.compress("".join(f"{line}\n" for line in lines).encode(), mtime=0))


def as_tokens(line: str) -> str:
    """Of the offline corpus, as Moses would."""
    return re.sub(r"([.,!?])", r" \1", line.lower())


def registry(file: Path, name: str, folder: Path, *, packed: bool) -> Path:
    """A registry file for what lies in `folder`; unpacked text has the checksum of the text."""
    text = (
        f'name = "{name}"\ndescription = "d"\nhomepage = "h"\nlicence = "l"\nlanguages = ["en", "de", "fr"]\n'
        f'folder = "{folder.name}"\nbase_url = "http://127.0.0.1:9/"\n'
    )
    for path in sorted(folder.iterdir()):
        content = path.read_bytes() if packed else gzip.decompress(path.read_bytes())
        entry = path.name if packed else path.name.removesuffix(".gz")
        split, language = path.name.removesuffix(".gz").rsplit(".", 1)
        text += f'[[files]]\nname = "{entry}"\nsplit = "{split}"\nlanguage = "{language}"\n'
        text += f'sha256 = "{hashlib.sha256(content).hexdigest()}"\n'
    file.write_text(text)
    return file


@pytest.fixture(scope="module")
def given(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """What make is told: the mirror, its registry files, sizes."""
    top = tmp_path_factory.mktemp("multi30k")
    mirror = top / "mirror"
    for split, count in SPLITS.items():
        pairs = list(generate({"train": "train", "val": "validation"}.get(split, "test"), count))
        sides = {"en": [p.source for p in pairs], "de": [p.target for p in pairs]}
        sides["fr"] = [line.replace("e", "é") for line in sides["de"]]
        for language, lines in sides.items():
            put(mirror / "raw" / f"{split}.{language}.gz", lines)
            put(mirror / "tok" / f"{split}.lc.norm.tok.{language}.gz", map(as_tokens, lines))
    more = list(generate("train", 500))[300:]
    for number in range(5):
        part = more[number * 40 : number * 40 + 40]
        put(mirror / "mono" / f"train.{number + 1}.en.gz", [p.source for p in part])
        # Blank, twice, and a line of the test: all to be left out.
        extra = ["", part[0].target, next(iter(generate("test", 1))).target]
        put(mirror / "mono" / f"train.{number + 1}.de.gz", [p.target for p in part] + extra)
    return {
        "MIRROR": str(mirror),
        "MULTI30K_CORPUS": str(registry(top / "raw.toml", "multi30k", mirror / "raw", packed=True)),
        "MULTI30K_TOK_CORPUS": str(registry(top / "tok.toml", "multi30k-tok", mirror / "tok", packed=False)),
        "MULTI30K_MONO_CORPUS": str(
            registry(top / "mono.toml", "multi30k-mono", mirror / "mono", packed=True)
        ),
        "MULTI30K_TESTS": TESTS,
        "SET": SHORT,
    }


def run(folder: Path, given: dict[str, str], target: str = "multi30k", **more: str) -> str:
    """What it says; the second time it says the same results and does nothing."""
    first = make(folder, target, timeout=1500, **given | more)
    assert first.returncode == 0, first.stdout + first.stderr
    before = {file: file.read_bytes() for file in folder.glob("runs/multi30k/**/results.json")}
    assert before
    again = make(folder, target, **given | more)
    assert again.returncode == 0, again.stderr
    assert {file: file.read_bytes() for file in folder.glob("runs/multi30k/**/results.json")} == before
    assert "nmt " not in again.stdout
    assert "pip" not in again.stdout
    return first.stdout + first.stderr


def systems(folder: Path, place: str) -> list[str]:
    rows = json.loads((folder / "runs/multi30k" / place / "results.json").read_text())
    for test in TESTS.split():
        assert {row["metric"] for row in rows if row["test_set"] == test} >= {
            "BLEU",
            "chrF2",
            "chrF2++",
            "TER",
        }
    return list(dict.fromkeys(row["system"] for row in rows))


CUMULATIVE = ["", " + sampling", " + R-Drop", " + averaging", " + back-translation"]


def names(rows: int, seeds: Iterable[int]) -> list[str]:
    return [
        f"transformer-tiny{''.join(CUMULATIVE[: row + 1])} (seed {seed})"
        for row in range(rows)
        for seed in seeds
    ]


@pytest.mark.slow
def test_published_protocol_all_rows(tmp_path: Path, given: dict[str, str]) -> None:
    pytest.importorskip("sacremoses", reason="needs sacremoses, with which the recipe tokenises")
    folder = workshop(tmp_path / "work")
    run(folder, given, PROTOCOL="published", SEEDS="1 2")
    here = folder / "runs/multi30k/published/en-de"
    ensemble = f"transformer-tiny{''.join(CUMULATIVE)} + ensemble of 2"
    assert systems(folder, "published/en-de") == [*names(5, (1, 2)), ensemble]

    rows = json.loads((here / "results.json").read_text())
    assert {row["signature"].split("tok:")[1].split("|")[0] for row in rows if row["metric"] == "BLEU"} == {
        "none"
    }
    found = json.loads((here / "means.json").read_text())
    assert {one["n"] for one in found if "ensemble" not in one["system"]} == {2}
    for one in found:
        scores = [
            row["score"]
            for row in rows
            if row["system"].removesuffix(f" (seed {row['system'][-2:-1]})") == one["system"]
            and (row["test_set"], row["metric"]) == (one["test_set"], one["metric"])
        ]
        assert one["scores"] == scores
        assert one["mean"] == pytest.approx(statistics.fmean(scores))

    mono, translated = (list(read_lines(here / "back" / f"train.{side}")) for side in ("de", "en"))
    assert len(mono) == len(translated) == len(set(mono)) > 100
    assert all(line == line.lower() for line in mono)
    assert as_tokens(next(iter(generate("test", 1))).target) not in mono
    config = (here / "back-translation-1/config.toml").read_text()
    assert '"<back>"' in config
    assert "r_drop = 5" in config

    everything = json.loads((folder / "runs/multi30k/results.json").read_text())
    assert {row["test_set"] for row in everything} == {f"published en-de {test}" for test in TESTS.split()}


@pytest.mark.slow
def test_french_has_no_back_translation(tmp_path: Path, given: dict[str, str]) -> None:
    folder = workshop(tmp_path / "work")
    said = run(folder, given, PAIR="en-fr", SEEDS="1 2", ROWS="averaging back-translation ensemble")
    ensemble = f"transformer-tiny{''.join(CUMULATIVE[:4])} + ensemble of 2"
    assert systems(folder, "raw/en-fr") == [*names(4, (1, 2))[-2:], ensemble]
    assert "row back-translation of en-fr is left out: the dataset has no French monolingual text" in said
    assert not (folder / "corpora/multi30k-mono").exists()
    config = (folder / "runs/multi30k/raw/en-fr/r-drop-1/config.toml").read_text()
    assert 'target_language = "fr"' in config


@pytest.mark.slow
def test_one_step_alone_and_sampled_back_translation(tmp_path: Path, given: dict[str, str]) -> None:
    folder = workshop(tmp_path / "work")
    rows = "only-r-drop only-averaging only-back-translation ensemble"
    said = run(folder, given, PAIR="de-en", ROWS=rows, BACK="sampling")
    assert systems(folder, "raw/de-en") == [
        f"transformer-tiny + {step} (seed 1)" for step in ("R-Drop", "averaging", "sampled back-translation")
    ]
    assert "row ensemble of de-en is left out: it needs two seeds" in said
    here = folder / "runs/multi30k/raw/de-en"
    assert not (here / "means.json").exists()
    assert len(list(read_lines(here / "back-sampled/train.de"))) == 200


@pytest.mark.slow
def test_the_paper_and_the_recurrent_model(tmp_path: Path, given: dict[str, str]) -> None:
    folder = workshop(tmp_path / "work")
    # Its ten checkpoints are more than the short training leaves.
    run(folder, given, PROTOCOL="published", CONFIG="paper", ROWS="only-averaging", STEPS="6")
    place = "published/en-de-paper"
    assert systems(folder, place) == ["transformer-tiny (Wu et al.) + averaging (seed 1)"]
    config = (folder / "runs/multi30k" / place / "baseline-1/config.toml").read_text()
    assert "accumulation = 2" in config
    tiny = SHORT.split(" model.")[0]
    widths = " ".join(f"model.{name}_width=16" for name in ("embedding", "hidden", "attention", "maxout"))
    run(folder, given | {"SET": f"{tiny} {widths}"}, "multi30k-recurrent", AVERAGE="2")
    rows = json.loads((folder / "runs/multi30k/recurrent/results.json").read_text())
    assert {row["system"] for row in rows} == {"bahdanau"}


@pytest.mark.slow
def test_the_same_again_from_nothing(tmp_path: Path, given: dict[str, str]) -> None:
    scores = []
    for name in ("one", "two"):
        folder = workshop(tmp_path / name)
        done = make(folder, "multi30k", ROWS="sampling", **given)
        assert done.returncode == 0, done.stderr
        rows = json.loads((folder / "runs/multi30k/raw/en-de/results.json").read_text())
        kept = ("system", "test_set", "metric", "score", "confidence_low", "confidence_high", "parameters")
        scores.append([[row[key] for key in kept] for row in rows])
    assert scores[0] == scores[1]


def failing(folder: Path, **given: str) -> tuple[str, subprocess.CompletedProcess[str]]:
    """The one line of the command that failed."""
    done = make(folder, "multi30k", **given)
    assert done.returncode == 2
    lines = [line for line in done.stderr.splitlines() if line.startswith("nmt: ")]
    assert len(lines) == 1, done.stderr
    assert "Traceback" not in done.stderr
    return lines[0], done


@pytest.mark.parametrize("packed", [True, False])
def test_a_wrong_file_in_the_mirror(tmp_path: Path, given: dict[str, str], packed: bool) -> None:
    folder, mirror = workshop(tmp_path / "work"), tmp_path / "mirror"
    source = Path(given["MIRROR"])
    kind, name = ("raw", "val.de.gz") if packed else ("tok", "val.lc.norm.tok.de")
    (mirror / kind).mkdir(parents=True)
    for file in (source / kind).iterdir():
        (mirror / kind / file.name).symlink_to(file)
    wrong = mirror / kind / f"{name.removesuffix('.gz')}.gz"
    wrong.unlink()
    put(wrong, ["another text"])
    protocol = "raw" if packed else "published"
    line, _ = failing(folder, **given | {"MIRROR": str(mirror), "PROTOCOL": protocol, "ROWS": "baseline"})
    assert f"{name}: " in line
    assert "is not the expected file" in line
    assert not (folder / "runs").exists()
    # Put right, it goes on.
    wrong.unlink()
    wrong.symlink_to(source / kind / wrong.name)
    again = make(
        folder, f"corpora/multi30k{'' if packed else '-tok'}/.complete", **given | {"PROTOCOL": protocol}
    )
    assert again.returncode == 0, again.stderr


@pytest.mark.parametrize(
    ("variables", "said"),
    [
        ({"PAIR": "en-cs"}, 'PAIR="en-cs" is not known; choose from: en-de de-en en-fr'),
        ({"PROTOCOL": "tok"}, 'PROTOCOL="tok" is not known; choose from: raw published'),
        ({"ROWS": "baseline rdrop"}, "is not known; choose from: baseline sampling r-drop"),
        ({"BACK": "greedy"}, "choose from: beam sampling"),
        ({"CONFIG": "bahdanau"}, "choose from: transformer paper"),
    ],
)
def test_variables_that_are_wrong(tmp_path: Path, variables: dict[str, str], said: str) -> None:
    done = make(workshop(tmp_path / "work"), "multi30k", **variables)
    assert done.returncode == 2
    assert said in done.stderr
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.slow
def test_attention_history(tmp_path: Path, given: dict[str, str]) -> None:
    """`attention-history-multi30k`, which takes the same corpus."""
    folder = workshop(tmp_path / "work")
    settings = given["SET"].split()
    for key in ("encoder_layers", "decoder_layers", "width", "feed_forward_width", "heads"):
        settings = [pair for pair in settings if not pair.startswith(f"model.{key}=")]
    systems = "no-attention luong-local-p-feed"
    told = given | {"SET": " ".join(settings), "SYSTEMS": systems, "STEPS": "4"}
    done = make(folder, "attention-history-multi30k", **told)
    assert done.returncode == 0, done.stdout + done.stderr
    assert all(f"| {system} |" in done.stdout for system in systems.split())
    results = folder / "runs/attention-history/multi30k/results.json"
    assert {row["system"] for row in json.loads(results.read_text())} == set(systems.split())
