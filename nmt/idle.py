"""Keys of a configuration that nothing reads, because of what others say."""

from __future__ import annotations

from nmt.config import Config

_HALVING = 'training.schedule = "halving"'
_ADAMS = 'training.optimizer = "adam", "adamw" or "muon"'


def idle_keys(config: Config) -> dict[str, str]:
    """``section.key`` of each, and what it would need to be read."""
    training = config.training
    found: dict[str, str] = {}
    if training.schedule != "halving":
        found |= {"training.halve_after_epochs": _HALVING, "training.halve_every_epochs": _HALVING}
    if training.optimizer != "adadelta":
        found["training.rho"] = 'training.optimizer = "adadelta"'
    if training.optimizer in ("adadelta", "sgd"):
        found["training.betas"] = _ADAMS
    if training.optimizer == "sgd":
        found["training.epsilon"] = f'{_ADAMS}, or "adadelta"'
    if len(config.data.train_prefixes) == 1:
        found["data.temperature"] = "several corpora in data.train"
    return found
