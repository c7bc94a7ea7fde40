"""Sentences of a test set that are worth reading: the best, the worst, the most different, the suspicious."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

FLAGS = {
    "repetition": "three or more tokens three times in a row, where the reference has no such thing",
    "copy": "half or more of its words are the source's, where the reference has fewer",
    "empty": "nothing was written for a sentence",
    "short": "less than half as long as the reference",
    "long": "more than twice as long as the reference",
}
REPEATED_TOKENS, REPEATED_TIMES = 3, 3
MOST_REPEATED = 100  # tokens: longer ones are not looked for
COPIED_SHARE = 0.5
LEAST_COPIED = 3  # words: fewer are often names
LEAST_EXCESS = 10  # characters: of short sentences ratios say little


def has_repetition(tokens: Sequence[str]) -> bool:
    """Whether n tokens, 3 to 100, stand three times or more in a row."""
    for size in range(REPEATED_TOKENS, min(len(tokens) // REPEATED_TIMES, MOST_REPEATED) + 1):
        wanted = size * (REPEATED_TIMES - 1)
        in_row = 0  # tokens that are those `size` before
        for place in range(size, len(tokens)):
            in_row = in_row + 1 if tokens[place] == tokens[place - size] else 0
            if in_row >= wanted:
                return True
    return False


def copied_share(source: str, translation: str) -> float:
    """How many of the translation's words the source has, 0 to 1, as Ott et al. 2018, "Analyzing uncertainty
    in neural machine translation", find copies: without numbers and punctuation; 0 of fewer than three
    words."""
    theirs, ours = _words(source), _words(translation)
    count = ours.total()
    return (theirs & ours).total() / count if count >= LEAST_COPIED else 0.0


def _words(text: str) -> Counter[str]:
    words = (word.strip(".,;:!?…\"'()[]«»„“”‚‘’-–—") for word in text.casefold().split())
    return Counter(word for word in words if any(character.isalpha() for character in word))


def flags_of(
    source: str,
    translation: str,
    reference: str,
    tokens: Sequence[str],
    reference_tokens: Sequence[str],
) -> list[str]:
    """Of FLAGS those that a translation deserves.

    Args:
        tokens: of the translation, by the model's vocabulary: words would not do where text has no blanks.
        reference_tokens: likewise, looked at where the tokens repeat themselves.
    """
    if not source.strip():
        return []
    if not translation.strip():
        return ["empty"]
    found = []
    if has_repetition(tokens) and not has_repetition(reference_tokens):
        found.append("repetition")
    is_same = " ".join(source.split()) == " ".join(translation.split()) != " ".join(reference.split())
    copied = copied_share(source, translation) >= COPIED_SHARE > copied_share(source, reference)
    if (is_same and any(character.isalpha() for character in source)) or copied:
        found.append("copy")
    ours, theirs = len(translation.strip()), len(reference.strip())
    if theirs and abs(ours - theirs) >= LEAST_EXCESS:
        if 2 * ours < theirs:
            found.append("short")
        elif ours > 2 * theirs:
            found.append("long")
    return found


def sentence_lists(
    scores: Mapping[str, Sequence[float]],
    flags: Mapping[str, Sequence[Sequence[str]]],
    references: Sequence[str],
    sources: Sequence[str],
    most: int,
) -> list[dict[str, Any]]:
    """Lists of at most so many places in the test set, the most telling first.

    Args:
        scores: of each line, by system; more is better. The first system is the baseline.
        flags: of each line, by system.
    """
    places = [place for place, source in enumerate(sources) if source.strip()]
    systems = list(scores)
    found = []

    def add(kind: str, title: str, chosen: list[int]) -> None:
        found.append({"kind": kind, "title": title, "of": len(chosen), "places": chosen[:most]})

    for name in systems:
        of = f" by {name}" if len(systems) > 1 else ""
        values = scores[name]
        # Of equally good ones the longer says more.
        add("best", f"Best{of}", sorted(places, key=lambda p: (-values[p], -len(references[p]), p)))
        add("worst", f"Worst{of}", sorted(places, key=lambda p: (values[p], -len(references[p]), p)))
    baseline = systems[0]
    for name in systems[1:]:
        gains = {place: scores[name][place] - scores[baseline][place] for place in places}
        different = [place for place in places if gains[place]]
        different.sort(key=lambda p: (-abs(gains[p]), p))
        add("different", f"Most different: {name} and {baseline}", different)
    flagged = [place for place in places if any(flags[name][place] for name in systems)]
    add("flagged", "Flagged", flagged)
    return found
