"""Sizes and training by name; values of a preset take the place of the defaults in `nmt.config`."""

from __future__ import annotations

from typing import Any


def _transformer(*, layers: int, **sizes: float) -> dict[str, Any]:
    return dict(encoder_layers=layers, decoder_layers=layers, **sizes)


def _bahdanau(*, embedding: int, hidden: int, maxout: int, dropout: float, **more: Any) -> dict[str, Any]:
    return dict(
        embedding_width=embedding,
        hidden_width=hidden,
        attention_width=hidden,
        maxout_width=maxout,
        dropout=dropout,
        **more,
    )


def _recurrent(*, embedding: int, hidden: int, layers: int, dropout: float, **more: Any) -> dict[str, Any]:
    return dict(embedding_width=embedding, hidden_width=hidden, layers=layers, dropout=dropout, **more)


def _luong(*, attentional: int, **sizes: Any) -> dict[str, Any]:
    return dict(attentional_width=attentional, **_recurrent(**sizes))


_TRANSFORMER_BASE = _transformer(layers=6, width=512, feed_forward_width=2048, heads=8, dropout=0.1)
_RNNSEARCH_50 = _bahdanau(embedding=620, hidden=1000, maxout=500, dropout=0.0, tie_embeddings="none")

# Sizes. Transformer: `tiny` is Wu et al. 2021 for Multi30k, `small` the usual IWSLT'14 size, `base` and `big`
# are Vaswani et al. 2017, table 3. Presets with a year have the sizes and first weights of a paper: Sutskever
# et al. 2014, sec. 3.4; Bahdanau et al. 2014, A.2.3 and B.1 (RNNsearch-50, also called `base`); Luong et al.
# 2015, sec. 4.1, its best single system. `vaswani2017` is `base`.
PRESETS: dict[str, dict[str, dict[str, Any]]] = {
    "transformer": {
        "tiny": _transformer(layers=4, width=128, feed_forward_width=256, heads=4, dropout=0.3),
        "small": _transformer(layers=6, width=512, feed_forward_width=1024, heads=4, dropout=0.3),
        "base": _TRANSFORMER_BASE,
        "vaswani2017": _TRANSFORMER_BASE,
        "big": _transformer(layers=6, width=1024, feed_forward_width=4096, heads=16, dropout=0.3),
    },
    "bahdanau": {
        "tiny": _bahdanau(embedding=128, hidden=256, maxout=128, dropout=0.2),
        "small": _bahdanau(embedding=256, hidden=512, maxout=256, dropout=0.2),
        "base": _RNNSEARCH_50,
        "bahdanau2014": _RNNSEARCH_50 | {"initialization": "paper"},
    },
    "recurrent": {
        "tiny": _recurrent(embedding=256, hidden=256, layers=2, dropout=0.2, tie_embeddings="target"),
        "small": _recurrent(embedding=512, hidden=512, layers=2, dropout=0.2, tie_embeddings="target"),
        "sutskever2014": _recurrent(
            embedding=1000, hidden=1000, layers=4, dropout=0.0, reverse_source=True, initialization="paper"
        ),
    },
    "luong": {
        "tiny": _luong(embedding=128, hidden=256, attentional=128, layers=2, dropout=0.2),
        "small": _luong(embedding=256, hidden=512, attentional=256, layers=2, dropout=0.2),
        "luong2015": _luong(
            embedding=1000,
            hidden=1000,
            attentional=1000,
            layers=4,
            dropout=0.2,
            window="local-p",
            reverse_source=True,
            tie_embeddings="none",
            initialization="paper",
        ),
    },
}
DEFAULT_PRESET = "tiny"


# Defaults that depend on the optimizer or the schedule; `TrainingConfig` has those of adam
# with inverse-sqrt.
RATES: dict[str, dict[str, Any]] = {
    "inverse-sqrt": {"warmup_steps": 2000},  # also after sgd or adadelta, which have none
    "noam": {"learning_rate": 1.0, "warmup_steps": 4000},
    "adadelta": {"learning_rate": 1.0, "schedule": "constant", "warmup_steps": 0, "epsilon": 1e-6},
    "sgd": {"learning_rate": 1.0, "schedule": "halving", "warmup_steps": 0},
}

# How the papers trained. They count sentences of at most 50 words in a batch; we count tokens.
TRAINING_PRESETS: dict[str, dict[str, Any]] = {
    "sutskever2014": {  # sec. 3.4: batches of 128 sentences
        "optimizer": "sgd",
        "learning_rate": 0.7,
        "schedule": "halving",
        "warmup_steps": 0,
        "halve_after_epochs": 5.0,
        "halve_every_epochs": 0.5,
        "max_epochs": 8,  # 7.5 in the paper
        "max_steps": 10_000_000,
        "loss_per": "sentence",
        "clip_norm": 5.0,
        "label_smoothing": 0.0,
    },
    "bahdanau2014": {  # appendix B.2: batches of 80 sentences, about five days
        "optimizer": "adadelta",
        "learning_rate": 1.0,
        "schedule": "constant",
        "warmup_steps": 0,
        "rho": 0.95,
        "epsilon": 1e-6,
        "max_steps": 667_000,  # table 2, RNNsearch-50 until it stopped improving
        "batch_tokens": 2400,
        "loss_per": "sentence",
        "clip_norm": 1.0,
        "label_smoothing": 0.0,
    },
    "luong2015": {  # sec. 4.1, with dropout: 12 epochs, halving after 8; batches of 128 sentences
        "optimizer": "sgd",
        "learning_rate": 1.0,
        "schedule": "halving",
        "warmup_steps": 0,
        "halve_after_epochs": 8.0,
        "halve_every_epochs": 1.0,
        "max_epochs": 12,
        "max_steps": 10_000_000,
        "loss_per": "sentence",
        "clip_norm": 5.0,
        "label_smoothing": 0.0,
    },
    "vaswani2017": {  # sec. 5, base: 25,000 tokens a side and batch
        "optimizer": "adam",
        "learning_rate": 1.0,
        "schedule": "noam",
        "warmup_steps": 4000,
        "betas": (0.9, 0.98),
        "epsilon": 1e-9,
        "max_steps": 100_000,
        "batch_tokens": 25_000,
        "clip_norm": 0.0,
        "label_smoothing": 0.1,
    },
}
