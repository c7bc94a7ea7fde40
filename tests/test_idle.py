"""Keys that nothing reads: refused where given, never where a run has written all its keys down."""

from __future__ import annotations

import pytest

from nmt.changes import Changes
from nmt.config import Config
from nmt.config_file import dump_config, parse_config
from nmt.errors import UserError
from nmt.presets import TRAINING_PRESETS

DATA = """[data]
train = "corpus/train"
validation = "corpus/val"
source_language = "en"
target_language = "de"
"""

# What is given and does nothing: the text, and the start of what is said.
IDLE = {
    "halving": (
        "[training]\nhalve_after_epochs = 3 # HERE\n",
        'training.halve_after_epochs does nothing without training.schedule = "halving"; remove it',
    ),
    "halving, later": (
        "[training]\nschedule = 'cosine'\nhalve_every_epochs = 3 # HERE\n",
        "training.halve_every_epochs",
    ),
    "rho": (
        "[training]\nrho = 0.9 # HERE\n",
        'training.rho does nothing without training.optimizer = "adadelta"',
    ),
    "betas": (
        "[training]\noptimizer = 'sgd'\nbetas = [0.9, 0.99] # HERE\n",
        "training.betas does nothing without training.optimizer",
    ),
    "betas of adadelta": (
        "[training]\noptimizer = 'adadelta'\nbetas = [0.9, 0.99] # HERE\n",
        "training.betas",
    ),
    "epsilon": ("[training]\noptimizer = 'sgd'\nepsilon = 1e-6 # HERE\n", "training.epsilon"),
    "epsilon, preset": ("[training]\npreset = 'luong2015'\nepsilon = 1e-6 # HERE\n", "training.epsilon"),
    "temperature": (
        "temperature = 2 # HERE\n",
        "data.temperature does nothing without several corpora in data.train",
    ),
}


@pytest.mark.parametrize("name", IDLE)
def test_what_does_nothing_is_refused_where_it_is_given(name: str) -> None:
    text, said = IDLE[name]
    line = next(n for n, row in enumerate((DATA + text).split("\n"), start=1) if "HERE" in row)
    with pytest.raises(UserError) as caught:
        parse_config(DATA + text, file="c.toml", strict=True)
    assert str(caught.value).startswith(f"c.toml:{line}: {said}")
    model = parse_config(DATA + text)  # a model that was trained with it
    with pytest.raises(UserError, match=r"--set training\.rho=0\.5: training\.rho does nothing"):
        parse_config(DATA, overrides=["training.rho=0.5"], strict=True)
    assert parse_config(dump_config(model)) == model


CHOICES = [
    *(f"training.preset={name}" for name in TRAINING_PRESETS),
    *(f"training.optimizer={name}" for name in ("adam", "adamw", "muon", "adadelta", "sgd")),
    *(
        f"training.schedule={name}"
        for name in ("inverse-sqrt", "linear", "cosine", "constant", "noam", "halving")
    ),
]


@pytest.mark.parametrize("first", CHOICES)
@pytest.mark.parametrize("second", [c for c in CHOICES if "schedule" in c])
def test_the_whole_configuration_of_a_run_is_not_refused(first: str, second: str) -> None:
    """It holds every key, those that nothing reads as well."""
    config = parse_config(DATA, overrides=[first, second], strict=True)
    assert parse_config(dump_config(config), strict=True) == config


def test_what_nothing_reads_may_change_only_where_nothing_reads_it() -> None:
    sgd = ["training.optimizer=sgd", "training.schedule=halving"]
    rates = ["training.betas=[0.5, 0.6]", "training.epsilon=1e-3", "training.rho=0.5"]

    def settings(*overrides: str) -> Config:
        return parse_config(DATA, overrides=overrides)

    assert not Changes.between(settings(*sgd), settings(*sgd, *rates)).refused
    assert len(Changes.between(settings(), settings(*rates)).refused) == 2  # of adam
    assert Changes.between(settings(*sgd), settings(*sgd, "training.halve_after_epochs=2")).refused
    two = 'data.train=["corpus/train", "b"]'
    assert Changes.between(settings(two), settings(two, "data.temperature=5")).refused
