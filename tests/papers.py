"""What the papers say, in NumPy and float64: one sentence, one position, one vector at a time.

The reference of the tests of recurrent models. Nothing is batched, padded or cached, so there is no mask to
get wrong. `Weights` is the state of a module, its names as in `module.state_dict()`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

Array = npt.NDArray[np.float64]
Weights = dict[str, Array]
CLOSE: dict[str, Any] = dict(rtol=1e-10, atol=1e-10)


def randomize(module: nn.Module, seed: int, scale: float = 0.4) -> None:
    """No parameter keeps a value, such as 0 or 1, that would hide a mistake."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator, dtype=torch.float64) * scale)


def weights_of(module: nn.Module) -> Weights:
    return {name: tensor.detach().numpy() for name, tensor in module.state_dict().items()}


def part_of(weights: Weights, prefix: str) -> Weights:
    """Those below a name, `prefix.`, without it."""
    return {
        name.removeprefix(f"{prefix}."): value
        for name, value in weights.items()
        if name.startswith(f"{prefix}.")
    }


def padding_mask(lengths: list[int], longest: int) -> Tensor:
    return torch.arange(longest) < torch.tensor(lengths)[:, None]


def sigmoid(x: Array) -> Array:
    return 1 / (1 + np.exp(-x))


def softmax(scores: list[float]) -> Array:
    exponentials = np.exp(np.array(scores) - max(scores))
    share: Array = exponentials / exponentials.sum()
    return share


def weighted_sum(shares: Array, vectors: list[Array]) -> Array:
    total = np.zeros_like(vectors[0])
    for share, vector in zip(shares, vectors, strict=True):
        total += share * vector
    return total


# --- Bahdanau, Cho and Bengio 2014, appendix A -----------------------------------------------------------


def additive_weights(weights: Weights, state: Array, annotations: list[Array]) -> Array:
    """A.1.2 and eq. 6: e_j = v' tanh(W s + U h_j), alpha = softmax(e)."""
    W, U, v = weights["query.weight"], weights["key.weight"], weights["energy.weight"][0]
    return softmax([float(v @ np.tanh(W @ state + U @ annotation)) for annotation in annotations])


def gated_unit(weights: Weights, embedded: Array, state: Array, context: Array | None = None) -> Array:
    """A.2.1 without a context, A.2.2 with one. Rows of the stacked matrices: reset, update, candidate."""
    n = len(state)
    W_r, W_z, W = np.split(weights["input.weight"], 3)
    b_r, b_z, b = np.split(weights["input.bias"], 3)
    U_r, U_z = np.split(weights["gates.weight"], 2)
    U = weights["candidate.weight"]
    assert U.shape == (n, n)
    if context is None:
        of_context = [np.zeros(n)] * 3
    else:
        of_context = [C @ context for C in np.split(weights["context.weight"], 3)]
    r = sigmoid(W_r @ embedded + b_r + U_r @ state + of_context[0])
    z = sigmoid(W_z @ embedded + b_z + U_z @ state + of_context[1])
    proposal = np.tanh(W @ embedded + b + U @ (r * state) + of_context[2])
    updated: Array = (1 - z) * state + z * proposal
    return updated


@dataclass
class Decoded:
    """Of each target position: what is projected, logits and attention weights."""

    output: list[Array] = field(default_factory=list)
    logits: list[Array] = field(default_factory=list)
    attention: list[Array] = field(default_factory=list)


def bahdanau(weights: Weights, source: list[int], target: list[int]) -> Decoded:
    """The whole model, RNNsearch."""
    embedded = [weights["embeddings.source.weight"][i] for i in source]
    n = weights["first_state.bias"].size

    def run(unit: str, words: list[Array]) -> list[Array]:
        state, states = np.zeros(n), []
        for word in words:
            state = gated_unit(part_of(weights, unit), word, state)
            states.append(state)
        return states

    forward = run("encoder.forward_unit", embedded)
    backward = run("encoder.backward_unit", embedded[::-1])[::-1]
    annotations = [np.concatenate(pair) for pair in zip(forward, backward, strict=True)]
    state = np.tanh(weights["first_state.weight"] @ backward[0] + weights["first_state.bias"])
    done = Decoded()
    for token in target:
        word = weights["embeddings.target.weight"][token]
        alpha = additive_weights(part_of(weights, "attention"), state, annotations)
        context = weighted_sum(alpha, annotations)
        state = gated_unit(part_of(weights, "cell"), word, state, context)
        pairs = (
            weights["maxout_hidden.weight"] @ state
            + weights["maxout_hidden.bias"]
            + weights["maxout_input.weight"] @ word
            + weights["maxout_context.weight"] @ context
        )
        done.output.append(np.array([max(pairs[2 * j], pairs[2 * j + 1]) for j in range(len(pairs) // 2)]))
        done.logits.append(project(weights, done.output[-1]))
        done.attention.append(alpha)
    return done


def project(weights: Weights, output: Array) -> Array:
    logits: Array = weights["embeddings.output.weight"] @ output + weights["embeddings.output.bias"]
    return logits


# --- recurrent layers: the equations in the documentation of torch.nn.LSTM and torch.nn.GRU --------------


def lstm(weights: Weights, x: Array, state: tuple[Array, ...], suffix: str = "") -> tuple[Array, ...]:
    """The next (h, c)."""
    h, c = state
    gates = (
        weights[f"weight_ih_l0{suffix}"] @ x
        + weights[f"bias_ih_l0{suffix}"]
        + weights[f"weight_hh_l0{suffix}"] @ h
        + weights[f"bias_hh_l0{suffix}"]
    )
    i, f, g, o = np.split(gates, 4)
    c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
    return sigmoid(o) * np.tanh(c), c


def gru(weights: Weights, x: Array, state: tuple[Array, ...], suffix: str = "") -> tuple[Array, ...]:
    """The next (h,)."""
    (h,) = state
    from_input = np.split(weights[f"weight_ih_l0{suffix}"] @ x + weights[f"bias_ih_l0{suffix}"], 3)
    from_hidden = np.split(weights[f"weight_hh_l0{suffix}"] @ h + weights[f"bias_hh_l0{suffix}"], 3)
    r = sigmoid(from_input[0] + from_hidden[0])
    z = sigmoid(from_input[1] + from_hidden[1])
    n = np.tanh(from_input[2] + r * from_hidden[2])
    return ((1 - z) * n + z * h,)


CELLS = {"lstm": lstm, "gru": gru}
PARTS = {"lstm": 2, "gru": 1}  # of a layer's state


def count_layers(weights: Weights) -> int:
    return len({name.split(".")[1] for name in weights if name.startswith("layers.")})


def stack_step(
    weights: Weights, cell: str, residual: bool, x: Array, state: list[tuple[Array, ...]]
) -> tuple[Array, list[tuple[Array, ...]]]:
    """One token through all layers; with `residual`, Wu et al. 2016, sec. 3.1: x^i = m^i + x^(i-1)."""
    following = []
    for index in range(count_layers(weights)):
        following.append(CELLS[cell](part_of(weights, f"layers.{index}"), x, state[index]))
        x = following[-1][0] + x if residual and index > 0 else following[-1][0]
    return x, following


def stack_encoder(
    weights: Weights, cell: str, residual: bool, reverse: bool, embedded: list[Array]
) -> tuple[list[Array], list[tuple[Array, ...]]]:
    """The highest layer's states in the order of the source, and each layer's last state.

    Reversed, the words change their order; the end of sentence stays at the end.
    """
    inputs = [*embedded[-2::-1], embedded[-1]] if reverse else embedded
    last = []
    for index in range(count_layers(weights)):
        layer = part_of(weights, f"layers.{index}")
        n = layer["weight_hh_l0"].shape[1]
        directions, ends = [], []
        for suffix in ("", "_reverse") if "weight_hh_l0_reverse" in layer else ("",):
            state: tuple[Array, ...] = (np.zeros(n),) * PARTS[cell]
            outputs = []
            for x in inputs[::-1] if suffix else inputs:
                state = CELLS[cell](layer, x, state, suffix)
                outputs.append(state[0])
            directions.append(outputs[::-1] if suffix else outputs)
            ends.append(state)
        outputs = [np.concatenate(pair) for pair in zip(*directions, strict=True)]
        if residual and index > 0:
            outputs = [output + x for output, x in zip(outputs, inputs, strict=True)]
        inputs = outputs
        last.append(tuple(np.concatenate(parts) for parts in zip(*ends, strict=True)))
    return [*inputs[-2::-1], inputs[-1]] if reverse else inputs, last


# --- Sutskever, Vinyals and Le 2014 ----------------------------------------------------------------------


def recurrent(
    weights: Weights, cell: str, residual: bool, reverse: bool, source: list[int], target: list[int]
) -> Decoded:
    """The whole model, without attention."""
    embedded = [weights["embeddings.source.weight"][i] for i in source]
    _, state = stack_encoder(part_of(weights, "encoder"), cell, residual, reverse, embedded)
    done = Decoded()
    for token in target:
        word = weights["embeddings.target.weight"][token]
        hidden, state = stack_step(part_of(weights, "decoder"), cell, residual, word, state)
        done.output.append(hidden)
        done.logits.append(project(weights, hidden))
    return done


# --- Luong, Pham and Manning 2015 ------------------------------------------------------------------------


def luong_score(weights: Weights, score: str, target_state: Array, source_state: Array, s: int) -> float:
    """Eq. 7 and the line above it; eq. 8 for "location". s counts from 1."""
    if score == "dot":
        return float(target_state @ source_state)
    if score == "general":
        return float(target_state @ weights["score.key.weight"] @ source_state)
    if score == "concat":
        W_a = np.concatenate([weights["score.query.weight"], weights["score.key.weight"]], axis=1)
        both = np.concatenate([target_state, source_state])
        return float(weights["score.energy.weight"][0] @ np.tanh(W_a @ both))
    assert score == "location"
    return float(weights["score.position.weight"][s - 1] @ target_state)


def predicted_position(weights: Weights, target_state: Array, length: int) -> float:
    """Eq. 9: p_t = S sigmoid(v_p' tanh(W_p h_t))."""
    energy = weights["predictor_energy.weight"][0] @ np.tanh(weights["predictor.weight"] @ target_state)
    return length / (1 + float(np.exp(-energy)))


def words_in_window(
    weights: Weights, window: str, size: int, target_state: Array, length: int, t: int
) -> tuple[list[int], float]:
    """The s, from 1, that target position t (from 1) looks at (sec. 3.2), and p_t."""
    if window == "global":
        return list(range(1, length + 1)), float("nan")
    if window == "local-m":
        center = float(min(t, length))  # the paper has t; a longer target stays at the last word
    else:
        center = predicted_position(weights, target_state, length)
    return [s for s in range(1, length + 1) if center - size <= s <= center + size], center


def luong_weights(
    weights: Weights,
    score: str,
    window: str,
    size: int,
    target_state: Array,
    source_states: list[Array],
    t: int,
) -> Array:
    """The alignment vector a_t over the whole sentence; 0 outside of the window."""
    inside, center = words_in_window(weights, window, size, target_state, len(source_states), t)
    align = softmax([luong_score(weights, score, target_state, source_states[s - 1], s) for s in inside])
    a = np.zeros(len(source_states))
    for s, share in zip(inside, align, strict=True):
        sigma = size / 2
        a[s - 1] = share * np.exp(-((s - center) ** 2) / (2 * sigma**2)) if window == "local-p" else share
    return a


@dataclass
class LuongOptions:
    """What the weights of a model do not tell."""

    cell: str
    score: str
    window: str
    window_size: int
    residual: bool
    reverse_source: bool
    fed_times: float  # 1 in the paper


def luong(weights: Weights, options: LuongOptions, source: list[int], target: list[int]) -> Decoded:
    """The whole model; with input feeding (sec. 3.3) where it has weights for what is fed."""
    embedded = [weights["embeddings.source.weight"][i] for i in source]
    source_states, state = stack_encoder(
        part_of(weights, "encoder"), options.cell, options.residual, options.reverse_source, embedded
    )
    decoder = part_of(weights, "decoder")
    W_c = weights["combine.weight"]
    attentional = np.zeros(W_c.shape[0])
    if "feed.weight" in weights:  # the lowest layer reads [y; h~]
        decoder["layers.0.weight_ih_l0"] = np.concatenate(
            [decoder["layers.0.weight_ih_l0"], weights["feed.weight"]], axis=1
        )
    done = Decoded()
    for t, token in enumerate(target, start=1):
        x = weights["embeddings.target.weight"][token]
        if "feed.weight" in weights:
            x = np.concatenate([x, options.fed_times * attentional])
        hidden, state = stack_step(decoder, options.cell, options.residual, x, state)
        a = luong_weights(
            part_of(weights, "attention"),
            options.score,
            options.window,
            options.window_size,
            hidden,
            source_states,
            t,
        )
        context = weighted_sum(a, source_states)
        attentional = np.tanh(W_c @ np.concatenate([context, hidden]))  # eq. 5
        done.output.append(attentional)
        done.logits.append(project(weights, attentional))
        done.attention.append(a)
    return done
