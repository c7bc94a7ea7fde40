"""What the user wants of the translation of a line: how it begins, what it holds, what it does not hold.

A `Wish` is text. A `Demand` is what that means for the tokens of one sentence; `Constraints` keeps beam
search to the demands of all sentences, and costs nothing to sentences that have none.

B sentences, K hypotheses, n of them in a piece, E further candidates of each, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from nmt.data.tokenizer import UNK, Tokenizer
from nmt.errors import UserError
from nmt.patterns import UNREACHABLE, Beginning, Surfaces
from nmt.search import Rows

Array = npt.NDArray[Any]
States = tuple[int, ...]  # of the beginning, then of each required and of each forbidden phrase


@dataclass(frozen=True)
class Wish:
    """Of one line. `files` and `line` say where what was read, for errors: by "prefix", "required", ..."""

    prefix: str = ""
    required: tuple[str, ...] = ()
    forbidden: tuple[str, ...] = ()
    line: int | None = None
    files: Mapping[str, Any] = field(default_factory=dict)

    def __bool__(self) -> bool:
        return bool(self.prefix.strip() or self.required or self.forbidden)

    def refuse(self, kind: str, message: str) -> UserError:
        """The error to raise for what one of the files asks."""
        file = self.files.get(kind)
        if file is None and self.line is not None:  # asked of all lines
            message = f"input line {self.line}: {message}"
        return UserError(message, file=file, line=None if file is None else self.line)

    @property
    def of_whole_line(self) -> bool:
        """Whether it says something of the line as a whole, so that parts of it would not do."""
        return bool(self.prefix.strip() or self.required or any(" " in phrase for phrase in self.forbidden))

    def of_parts(self, count: int) -> list[Wish | None]:
        """What is wanted of each part of a line that is translated in parts; none of a blank line.

        Raises:
            UserError: where it would come to stand is not known.
        """
        if count < 2:
            return [self] * count
        several = [phrase for phrase in self.forbidden if " " in phrase]
        for kind, phrases in (("required", list(self.required)), ("forbidden", several)):
            if phrases:
                raise self.refuse(
                    kind,
                    f'the line is longer than the model takes at once, and "{phrases[0]}" can be {kind} only '
                    "where a line is translated whole; cut the line",
                )
        return [self, *[replace(self, prefix="")] * (count - 1)]

    def check(self, tokenizer: Tokenizer) -> None:
        """UserError where no tokens spell it, or it contradicts itself, whatever the model."""
        if tokenizer.word_level:
            words = {kind: getattr(self, kind) for kind in ("required", "prefix")}
            words["prefix"] = (self.prefix if self.prefix.endswith(" ") else self.prefix.rpartition(" ")[0],)
            for kind, phrases in words.items():
                for phrase in phrases:
                    unknown = [w for w in phrase.split(" ") if w and UNK in tokenizer.encode(w)]
                    if unknown:
                        raise self.refuse(
                            kind, f'"{unknown[0]}" is not in the vocabulary of words; use a word that is'
                        )
        for phrase in self.forbidden:
            for kind, texts in (("required", self.required), ("prefix", (self.prefix,))):
                for text in texts:
                    if phrase in text:
                        asked = "is required" if kind == "required" else "begins the translation"
                        raise self.refuse(
                            kind, f'"{text}" {asked}, and holds "{phrase}", which is forbidden; drop one'
                        )


class Demand:
    """What is asked of the tokens of one sentence."""

    def __init__(
        self,
        wish: Wish,
        tokenizer: Tokenizer,
        surfaces: Surfaces,
        most: int,
        *,
        whole_words: bool = True,
    ):
        """
        Args:
            surfaces: of the tokenizer.
            most: tokens of the translation, its end counted.
            whole_words: a part of a word does not do for a required phrase.

        Raises:
            UserError: it cannot be had in so many tokens.
        """
        self.usable_V, self.most = surfaces.usable_V, most
        self.beginning = Beginning.of(wish.prefix, tokenizer, surfaces) if wish.prefix.strip() else None
        self.required = [surfaces.pattern(phrase, whole_words) for phrase in wish.required]
        self.forbidden = [surfaces.pattern(phrase, False) for phrase in wish.forbidden]
        # What each phrase costs at most, in tokens, after the others.
        self._most = [
            p.most_after_word if any(o.is_word for o in self.required if o is not p) else p.most
            for p in self.required
        ]
        self.first: States = (0, *(p.begin for p in (*self.required, *self.forbidden)))
        begun = 0 if self.beginning is None else int(self.beginning.distance_S[0])
        if begun >= UNREACHABLE:
            raise wish.refuse("prefix", f'no words of the vocabulary begin with "{wish.prefix}"; change it')
        room = most - 1
        if begun > room:
            raise wish.refuse(
                "prefix",
                f"the prefix of {begun} tokens is longer than the maximum of {room} of this"
                " translation; shorten it, or raise --max-length",
            )
        for pattern in self.required:
            if pattern.most >= UNREACHABLE:
                raise wish.refuse("required", f'no tokens spell "{pattern.phrase}"; change it')
        need = self.need(self.first)
        if need > room:
            raise wish.refuse(
                "required",
                f"what is required needs {need} tokens, more than the maximum of {room} of this translation; "
                "require less, or raise --max-length",
            )

    def after(self, states: States, token: int) -> States:
        """The states when one more token was read."""
        begun = states[0]
        if self.beginning is not None and begun < self.beginning.done:
            begun = max(int(self.beginning.next(begun)[token]), 0)
        patterns = (*self.required, *self.forbidden)
        return begun, *(
            int(pattern.next_SV[state, token]) for pattern, state in zip(patterns, states[1:], strict=True)
        )

    def need(self, states: States) -> int:
        """Tokens in which all can be had from here, the end not counted: never fewer than it takes."""
        left = self._left(np.array(states[:1]))
        return int(self._need(left, [np.array([state]) for state in states[1 : 1 + len(self.required)]])[0])

    def ahead(self, states: States) -> tuple[Array, Array]:
        """Of each token (V,): the `need` after it, and whether it is one that must not come."""
        begun, refused_V = np.array([states[0]]), ~self.usable_V
        if self.beginning is not None and states[0] < self.beginning.done:
            begun = self.beginning.next(states[0])
            refused_V = refused_V | (begun < 0)
        patterns = self.required
        next_PV = [p.next_SV[s] for p, s in zip(patterns, states[1:], strict=False)]
        need_V = np.broadcast_to(self._need(self._left(begun), next_PV), refused_V.shape)
        for pattern, state in zip(self.forbidden, states[1 + len(patterns) :], strict=True):
            refused_V = refused_V | (pattern.next_SV[state] >= pattern.whole)
        return need_V, refused_V

    def begins(self, states: States) -> bool:
        """Whether the beginning is not yet written."""
        return self.beginning is not None and states[0] < self.beginning.done

    def _left(self, begun_V: Array) -> Array:
        """Tokens that the beginning still needs."""
        if self.beginning is None:
            return np.zeros_like(begun_V)
        return self.beginning.distance_S[np.minimum(begun_V, self.beginning.done)]

    def _need(self, left_V: Array, states_PV: list[Array]) -> Array:
        """The bound of `need`: one phrase is completed, then the others, each from its beginning.

        A phrase that has been read but may still turn out to be part of a longer word (`Pattern.whole`)
        counts as had if a token that ends the word follows, `open_S`, or else as not begun, whichever is
        less.
        """
        if not states_PV:
            return left_V
        patterns = self.required
        had_PV = [s >= p.whole for p, s in zip(patterns, states_PV, strict=True)]
        loose_PV = [(s == p.whole) for p, s in zip(patterns, states_PV, strict=True)]
        any_loose_V = np.logical_or.reduce(loose_PV)
        fresh_V = sum(np.where(had, 0, most) for most, had in zip(self._most, had_PV, strict=True))
        lost_V = sum(np.where(loose, most, 0) for most, loose in zip(self._most, loose_PV, strict=True))
        never = -UNREACHABLE
        closing, going_on = [], []
        for p, most, s, had in zip(patterns, self._most, states_PV, had_PV, strict=True):
            closing.append(np.where(had, never, most - np.where(any_loose_V, p.open_S[s], p.distance_S[s])))
            going_on.append(np.where(had, never, most - p.distance_S[s]))
        all_had_V = np.logical_and.reduce(had_PV)
        closed_V = np.where(all_had_V, 0, fresh_V - np.maximum.reduce(closing))
        gone_on_V = np.where(all_had_V, 0, fresh_V + lost_V - np.maximum(np.maximum.reduce(going_on), 0))
        need_V: Array = np.minimum(closed_V, gone_on_V)
        # Where the beginning will have left the phrases is not known.
        return np.where(left_V > 0, left_V + fresh_V + lost_V, need_V)


class Constraints:
    """Keeps a search to the demands of its sentences; `nmt.beam.Beam` takes it as `guide`.

    Scores of tokens that must not come become -inf, those among them after which too few tokens are left for
    what is required: so it is always had. That it is had where it fits best is the work of `allocate`, after
    the dynamic beam allocation of Post and Vilar 2018: hypotheses that have as much of it compete with each
    other alone.
    """

    def __init__(self, demands: Sequence[Demand | None], end: int):
        """`demands`: of each sentence, by index."""
        self.demands, self.end = demands, end
        self.extra = max((len(d.required) for d in demands if d is not None), default=0)
        self._earlier: dict[tuple[int, tuple[int, ...]], States] = {}  # of the last step
        self._states: dict[tuple[int, tuple[int, ...]], States] = {}
        self._need_V: dict[int, Array] = {}  # of the hypotheses of this step, by flat index
        self._further: dict[int, list[int]] = {}

    def constrained(self, rows: Rows, flat_n: Tensor) -> list[tuple[int, int, Demand, States]]:
        """Of a piece, those with demands: place in the piece, flat index, demand, states."""
        per_row = rows.score_BK.size(1)
        found = []
        prefixes: dict[int, list[list[int]]] = {}
        for place, flat in enumerate(flat_n.tolist()):
            row, k = divmod(flat, per_row)
            sentence = rows.sentence_B[row]
            demand = self.demands[sentence] if sentence >= 0 else None
            if demand is None:
                continue
            if row not in prefixes:
                prefixes[row] = rows.prefix_BKT[row, :, : rows.age_B[row]].tolist()
            found.append((place, flat, demand, self._states_of(sentence, demand, tuple(prefixes[row][k]))))
        return found

    def _states_of(self, sentence: int, demand: Demand, tokens: tuple[int, ...]) -> States:
        if not tokens:
            return demand.first
        key = (sentence, tokens)
        states = self._states.get(key) or self._earlier.get(key)
        if states is None:
            states = demand.after(self._states_of(sentence, demand, tokens[:-1]), tokens[-1])
        self._states[key] = states
        return states

    def edit(self, rows: Rows, scores_nV: Tensor, flat_n: Tensor, spared_nV: Tensor | None) -> None:
        """Changes the scores of a piece; `spared_nV`: what they were before no-repeat rules, which yield."""
        for place, flat, demand, states in self.constrained(rows, flat_n):
            need_V, refused_V = demand.ahead(states)
            need = demand.need(states)
            age = rows.age_B[flat // rows.score_BK.size(1)]
            refused_V = refused_V | (need_V > demand.most - age - 2)  # this token and the end
            wanted_V = need_V < need
            scores_V = scores_nV[place]
            if spared_nV is not None:
                spare_V = torch.from_numpy(wanted_V | demand.begins(states)).to(scores_V.device)
                scores_V.copy_(torch.where(spare_V, spared_nV[place], scores_V))
            end_score = scores_V[self.end].clone()
            scores_V.masked_fill_(torch.from_numpy(refused_V).to(scores_V.device), -torch.inf)
            scores_V[self.end] = -torch.inf if need > 0 else end_score
            if demand.required:
                self._need_V[flat] = need_V
                self._further[flat] = self._best_steps(demand, states, scores_V)

    def _best_steps(self, demand: Demand, states: States, scores_V: Tensor) -> list[int]:
        """For each phrase that is missing the best of the tokens that get on with it."""
        steps = []
        for pattern, state in zip(demand.required, states[1:], strict=False):
            nearer_V = pattern.distance_S[pattern.next_SV[state]] < pattern.distance_S[state]
            if state < pattern.whole and nearer_V.any():
                (token_N,) = nearer_V.nonzero()
                tokens = torch.from_numpy(token_N).to(scores_V.device)
                steps.append(int(tokens[scores_V[tokens].argmax()]))
        return steps

    def further(self, flat_n: Tensor) -> Tensor:
        """Tokens to consider beside the best of all (n, E); the end where there are fewer."""
        rows = [self._further.get(flat, []) for flat in flat_n.tolist()]
        padded = [tokens + [self.end] * (self.extra - len(tokens)) for tokens in rows]
        return torch.tensor(padded, dtype=torch.long, device=flat_n.device).view(len(rows), self.extra)

    def allocate(
        self, row: int, score_KC: Tensor, token_KC: Tensor, ending_K: Tensor, places: int
    ) -> tuple[list[tuple[float, int, int]], list[int]] | None:
        """Deal out the places of a sentence; None: it has no required phrases.

        Args:
            row: of the sentence.
            score_KC, token_KC: its candidates; a token may come twice.
            ending_K: log-probability of ending each hypothesis; -inf: it must not end.
            places: how many there are to deal out.

        Returns:
            Extensions (log-probability, hypothesis, token), best first, and the hypotheses that end.
        """
        size = score_KC.size(0)
        flats = range(row * size, (row + 1) * size)
        if not any(flat in self._need_V for flat in flats):
            return None
        banks: dict[int, list[tuple[float, int, int]]] = {}
        seen = set()
        for k, (scores, tokens) in enumerate(zip(score_KC.tolist(), token_KC.tolist(), strict=True)):
            need_V = self._need_V.get(flats[k])
            for score, token in zip(scores, tokens, strict=True):
                if need_V is not None and score > -np.inf and (k, token) not in seen:
                    seen.add((k, token))
                    banks.setdefault(int(need_V[token]), []).append((score, k, token))
        for k, score in enumerate(ending_K.tolist()):
            if score > -np.inf:
                banks.setdefault(0, []).append((score, k, self.end))
        # The best of each bank, those that have most first, then the second best of each, and so on.
        dealt = []
        for need, bank in sorted(banks.items()):
            bank.sort(key=lambda candidate: (-candidate[0], candidate[2] != self.end))
            dealt += [(rank, need, candidate) for rank, candidate in enumerate(bank)]
        dealt.sort(key=lambda item: item[:2])
        chosen = [candidate for _, _, candidate in dealt[:places]]
        extended = sorted((c for c in chosen if c[2] != self.end), key=lambda c: -c[0])
        return extended, [k for _, k, token in chosen if token == self.end]

    def end_step(self) -> None:
        """Forget what was of the step."""
        self._earlier, self._states = self._states, {}
        self._need_V.clear()
        self._further.clear()


def demands_of(
    wishes: Iterable[Wish | None], tokenizer: Tokenizer, surfaces: Surfaces, longest: Sequence[int]
) -> list[Demand | None]:
    """The demands of sentences; UserError where one cannot be met."""
    return [
        Demand(wish, tokenizer, surfaces, most) if wish else None
        for wish, most in zip(wishes, longest, strict=True)
    ]
