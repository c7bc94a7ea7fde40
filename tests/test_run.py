"""A run folder: which checkpoints stay, which is best, what of the metrics counts, and who may write."""

from __future__ import annotations

import json
import multiprocessing
import os
import random
from collections.abc import Iterator
from pathlib import Path

import pytest
from support import TINY, Nmt

from nmt.averaging import last_checkpoints
from nmt.checkpoint import MANIFEST
from nmt.config import Config
from nmt.config_file import load_config, parse_config
from nmt.errors import UserError
from nmt.run import METRICS, Run, find_checkpoints, list_checkpoints, rank, sign

CONFIG = parse_config(TINY)


@pytest.fixture
def run(tmp_path: Path) -> Iterator[Run]:
    with Run.open(tmp_path / "run", CONFIG) as opened:
        yield opened


def save(run: Run, step: int, score: float | None = None, *, metric: str = "bleu") -> None:
    """A checkpoint as `Run` sees one: its manifest. Without a score it is one of an interruption."""
    folder = run.checkpoint_folder(step)
    folder.mkdir()
    scores = {} if score is None else {metric: score}
    manifest = {"format": 1, "files": {}, "step": step, "scores": scores, "scheduled": score is not None}
    (folder / MANIFEST).write_text(json.dumps(manifest))


def steps(run: Run) -> list[int]:
    return [checkpoint.step for checkpoint in run.checkpoints()]


def links(run: Run) -> dict[str, int]:
    """Which steps `best` and `last` point to; relative, so that a run can be moved."""
    found = {}
    for name in ("best", "last"):
        link = run.folder / name
        if link.is_symlink():
            assert not link.readlink().is_absolute()
            found[name] = json.loads((link / MANIFEST).read_text())["step"]
    return found


def saved_and_kept(run: Run, scores: list[float | None], *, last: int, best: int, metric: str) -> None:
    for number, score in enumerate(scores, start=1):
        save(run, number, score, metric=metric)
        run.keep(last=last, best=best, metric=metric)


# Better and worse


def test_more_bleu_is_better_and_less_loss() -> None:
    assert [sign(metric) for metric in ("bleu", "loss", "perplexity")] == [1, -1, -1]


@pytest.mark.parametrize(
    ("metric", "expected"), [("bleu", [20, 40, 10, 30, 50]), ("loss", [30, 50, 10, 20, 40])]
)
def test_rank_is_best_first_and_the_earlier_among_equals(run: Run, metric: str, expected: list[int]) -> None:
    for step, score in {10: 2, 20: 3, 30: 1, 40: 3, 50: 1, 60: None}.items():
        save(run, step, score, metric=metric)
    assert [c.step for c in rank(run.checkpoints(), metric)] == expected
    assert rank(run.checkpoints(), "perplexity") == []
    assert rank([], metric) == []


# Retention


@pytest.mark.parametrize(
    ("metric", "scores", "last", "best", "kept", "best_step"),
    [
        ("bleu", [1, 9, 3, 4, 5], 2, 1, [2, 4, 5], 2),
        ("bleu", [1, 9, 8, 4, 5], 1, 2, [2, 3, 5], 2),
        ("bleu", [1, 2, 3, 4, 5], 2, 1, [4, 5], 5),
        ("bleu", [1, 2, 3, 4, 5], 9, 9, [1, 2, 3, 4, 5], 5),
        ("bleu", [7, 7, 7, 7], 1, 1, [1, 4], 1),  # among equals the earlier
        ("bleu", [0, 0, 5, 5, 4], 1, 2, [3, 4, 5], 3),
        ("loss", [9, 1, 3, 4, 5], 2, 1, [2, 4, 5], 2),
        ("loss", [5, 4, 3, 2, 1], 1, 2, [4, 5], 5),
        ("perplexity", [9, 1, 1, 4, 5], 1, 1, [2, 5], 2),
    ],
)
def test_the_last_and_the_best_stay(
    run: Run, metric: str, scores: list[float | None], last: int, best: int, kept: list[int], best_step: int
) -> None:
    saved_and_kept(run, scores, last=last, best=best, metric=metric)
    assert steps(run) == kept
    assert links(run) == {"best": best_step, "last": len(scores)}
    assert sorted(p.name for p in run.checkpoints_folder.iterdir()) == [f"step-{s:08d}" for s in kept]


def test_the_checkpoint_of_an_interruption_serves_until_the_next_one(run: Run) -> None:
    saved_and_kept(run, [3, 9, None], last=2, best=1, metric="bleu")
    assert steps(run) == [1, 2, 3]  # it takes no other's place
    assert links(run) == {"best": 2, "last": 3}
    save(run, 4, None)
    run.keep(last=2, best=1, metric="bleu")
    assert steps(run) == [1, 2, 4]
    save(run, 5, 4)
    run.keep(last=2, best=1, metric="bleu")
    assert steps(run) == [2, 5]
    assert links(run) == {"best": 2, "last": 5}


def test_interrupted_before_the_first_validation(run: Run) -> None:
    saved_and_kept(run, [None], last=2, best=1, metric="bleu")
    assert steps(run) == [1]
    assert links(run) == {"last": 1}


@pytest.mark.parametrize("seed", range(5))
def test_interruptions_change_nothing_in_the_end(tmp_path: Path, seed: int) -> None:
    """Whatever came between, the scheduled checkpoints that stay are the same."""
    chance = random.Random(seed)
    scores = {10 * i: float(chance.randrange(5)) for i in range(1, 13)}
    interruptions = chance.sample([s for s in range(1, 120) if s % 10], 8)
    ends = []
    for name, extra in (("plain", []), ("interrupted", interruptions)):
        with Run.open(tmp_path / name, CONFIG) as run:
            for step in sorted([*scores, *extra]):
                save(run, step, scores.get(step), metric="loss")
                run.keep(last=3, best=2, metric="loss")
            ends.append((steps(run), links(run)))
    assert ends[0] == ends[1]


def test_what_is_not_whole_is_no_checkpoint(run: Run) -> None:
    save(run, 1, 5)
    run.checkpoint_folder(2).mkdir()
    (run.checkpoints_folder / ".step-00000003.partial-1").mkdir()
    assert steps(run) == [1]
    assert list_checkpoints(run.folder) == run.checkpoints()
    run.keep(last=1, best=1, metric="bleu")
    assert links(run) == {"best": 1, "last": 1}


BROKEN = [
    '{"format": 1, "fi',
    "\0" * 40,
    '{"format": 1, "files": {}}',
    '{"format": 1, "files": {}, "step": "x"}',
    "[]",
]


@pytest.mark.parametrize("content", BROKEN)
def test_a_manifest_that_cannot_be_read_is_no_checkpoint(run: Run, content: str) -> None:
    """Tidying up goes on, and leaves it alone."""
    saved_and_kept(run, [5, 6], last=3, best=1, metric="bleu")
    (run.checkpoint_folder(1) / MANIFEST).write_text(content)
    assert steps(run) == [2]
    assert list(find_checkpoints(run.folder)[1]) == [run.checkpoint_folder(1)]
    save(run, 3, 7)
    run.keep(last=1, best=1, metric="bleu")
    assert links(run) == {"best": 3, "last": 3}
    run.close()
    Run.open(run.folder, CONFIG).close()
    assert run.checkpoint_folder(1).is_dir()
    with pytest.raises(UserError, match=r"step-00000001/manifest\.json"):
        last_checkpoints(run.folder, 1)


def test_where_no_manifest_can_be_read_nothing_begins_anew(run: Run) -> None:
    save(run, 1, 5)
    (run.checkpoint_folder(1) / MANIFEST).write_text("{")
    run.close()
    with pytest.raises(UserError, match=r"step-00000001/manifest.json: is damaged; .* --restart"):
        Run.open(run.folder, changed(width=64))
    assert load_config(run.folder / "config.toml") == CONFIG
    Run.open(run.folder, CONFIG, restart=True).close()


def test_a_checkpoint_of_a_later_version_is_not_damaged(run: Run) -> None:
    save(run, 1, 5)
    save(run, 2, 5)
    (run.checkpoint_folder(2) / MANIFEST).write_text('{"format": 99, "files": {}, "step": 2}')
    run.close()
    with pytest.raises(UserError, match="upgrade nmt"):
        Run.open(run.folder, CONFIG)


def test_training_keeps_what_its_configuration_says(tiny_run: Path) -> None:
    """`keep_last = 2`, validated at steps 4, 8 and 12."""
    found = list_checkpoints(tiny_run / "runs" / "tiny")
    best = rank(found, "bleu")[0].step
    assert [c.step for c in found] == sorted({best, 8, 12})
    assert all(c.scheduled for c in found)
    assert all(c.scores.keys() == {"loss", "perplexity", "bleu"} for c in found)


# Metrics


def test_metrics_after_the_checkpoint_are_cut(run: Run) -> None:
    size = run.log({"step": 1, "text": "ä"})
    assert size == run.sync_metrics() == (run.folder / METRICS).stat().st_size
    run.log({"step": 2})
    run.close()
    with Run.open(run.folder, CONFIG) as again:
        again.cut_metrics(size)
        again.log({"step": 3})
        lines = (run.folder / METRICS).read_text().splitlines()
        assert [json.loads(line)["step"] for line in lines] == [1, 3]
        again.close()
        again.cut_metrics(0)
        assert (run.folder / METRICS).read_bytes() == b""


# Who may write


def test_a_run_has_one_writer(run: Run) -> None:
    message = "another process is training here; wait for it, or choose another --run"
    for restart in (False, True):
        with pytest.raises(UserError, match=message):
            Run.open(run.folder, CONFIG, restart=restart)

    def open_again() -> None:
        try:
            Run(run.folder)._locked()
        except UserError:
            os._exit(7)

    other = multiprocessing.get_context("fork").Process(target=open_again)
    other.start()
    other.join()
    assert other.exitcode == 7
    run.close()
    Run.open(run.folder, CONFIG).close()


def test_a_run_that_could_not_be_opened_is_not_locked(run: Run) -> None:
    save(run, 1, 5)
    run.close()
    with pytest.raises(UserError):
        Run.open(run.folder, changed(width=64))
    Run.open(run.folder, CONFIG).close()


def changed(**keys: int) -> Config:
    return CONFIG.model_copy(update={"model": CONFIG.model.model_copy(update=keys)})


def test_a_changed_configuration_is_refused_by_key(run: Run) -> None:
    save(run, 1, 5)
    run.close()
    with pytest.raises(UserError, match=r"another configuration: .*model\.width.*--restart"):
        Run.open(run.folder, changed(width=64))
    assert load_config(run.folder / "config.toml") == CONFIG


def test_before_the_first_checkpoint_the_configuration_may_change(run: Run) -> None:
    run.close()
    Run.open(run.folder, changed(width=64)).close()
    assert load_config(run.folder / "config.toml") == changed(width=64)


def test_restart_moves_the_run_aside(run: Run) -> None:
    save(run, 1, 5)
    run.close()
    for number, width in ((1, 64), (2, 128)):
        with Run.open(run.folder, changed(width=width), restart=True) as again:
            assert steps(again) == []
            aside = run.folder.with_name(f"run.old-{number}")
            assert load_config(aside / "config.toml") == (CONFIG if number == 1 else changed(width=64))
    assert [c.step for c in list_checkpoints(run.folder.with_name("run.old-1"))] == [1]


def test_a_restart_that_nothing_came_of_is_undone(run: Run) -> None:
    save(run, 1, 5)
    run.close()
    with Run.open(run.folder, changed(width=64), restart=True) as again:
        assert again.put_back()
    with Run.open(run.folder, CONFIG) as as_it_was:
        assert steps(as_it_was) == [1]
        assert not as_it_was.put_back()
    assert not run.folder.with_name("run.old-1").exists()
    with Run.open(run.folder, CONFIG, restart=True) as trained:
        save(trained, 1, 5)
        assert not trained.put_back()


def test_leftovers_of_a_killed_process_go(run: Run) -> None:
    (run.folder / ".best.partial-1").symlink_to("nowhere")
    (run.checkpoints_folder / ".step-00000003.partial-1").mkdir()
    run.close()
    Run.open(run.folder, CONFIG).close()
    assert [p for p in run.folder.rglob("*") if "partial" in p.name] == []


def test_what_is_no_run_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "cat.jpg").write_text("cat")
    with pytest.raises(UserError, match=r"is not empty and not a run \(it holds cat.jpg\)"):
        Run.open(tmp_path / "photos", CONFIG)
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="is a file; name a folder for the run with --run"):
        Run.open(tmp_path / "file", CONFIG)
    assert (tmp_path / "photos" / "cat.jpg").read_text() == "cat"


@pytest.mark.parametrize("restart", [False, True])
def test_a_configuration_alone_is_no_run(nmt: Nmt, restart: bool) -> None:
    """It may be the user's own, with what else the folder holds."""
    mine = "# my own comments\n" + TINY
    for name in ("project", "alone"):
        (nmt.folder / name).mkdir()
        (nmt.folder / name / "config.toml").write_text(mine)
    (nmt.folder / "project" / "thesis.txt").write_text("all of it")
    options = ["--restart"] if restart else []
    said = nmt.error("train", "project/config.toml", "--run", "project", *options)
    assert "project: is not empty and not a run (it holds config.toml, thesis.txt)" in said
    assert "is not empty" in nmt.error("train", "alone/config.toml", "--run", "alone", *options)
    assert sorted(str(path.relative_to(nmt.folder)) for path in nmt.folder.glob("*/*")) == [
        "alone/config.toml",
        "project/config.toml",
        "project/thesis.txt",
    ]
    assert (nmt.folder / "project/config.toml").read_text() == mine


def test_checkpoints_make_a_run_without_its_environment(run: Run) -> None:
    save(run, 1, 5)
    run.close()
    (run.folder / "environment.json").unlink()
    with Run.open(run.folder, CONFIG) as again:
        assert steps(again) == [1]


def test_killed_before_its_configuration_was_written_it_begins(run: Run) -> None:
    run.close()
    (run.folder / "config.toml").unlink()
    Run.open(run.folder, CONFIG).close()
    assert load_config(run.folder / "config.toml") == CONFIG


def test_training_refuses_a_run_in_use(nmt: Nmt) -> None:
    (nmt.folder / "tiny.toml").write_text(TINY)
    with Run.open(nmt.folder / "runs" / "tiny", load_config(nmt.folder / "tiny.toml")):
        assert "runs/tiny: another process is training here" in nmt.error("train", "tiny.toml")
