"""nmt init: from two text files to a configuration to train with."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from nmt.cli import output as out

if TYPE_CHECKING:
    from nmt.advice import Choice
    from nmt.holdout import Corpus, Layout, Pairs, Split
    from nmt.profile import Profile


def init(
    config: Annotated[Path, typer.Argument(metavar="CONFIG.toml", help="The configuration to write.")],
    source: Annotated[
        Path, typer.Option(metavar="FILE", help="Text to translate from, one sentence a line.")
    ],
    target: Annotated[Path, typer.Option(metavar="FILE", help="Its translation, line by line.")],
    validation: Annotated[
        str | None, typer.Option(metavar="PREFIX", help="PREFIX.en and PREFIX.de; held out without it.")
    ] = None,
    test: Annotated[
        str | None, typer.Option(metavar="PREFIX", help="As --validation, for the final score.")
    ] = None,
    source_language: Annotated[
        str | None, typer.Option(metavar="L", help="Code, e.g. en; the suffix of the file without it.")
    ] = None,
    target_language: Annotated[str | None, typer.Option(metavar="L", help="As --source-language.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace what an earlier init wrote.")] = False,
) -> None:
    """Look at two aligned files, hold out what is missing and write a commented configuration."""
    from nmt.advice import advise, fit_tokenizer, render
    from nmt.data.corpus import read_parallel
    from nmt.holdout import (
        check_place,
        given_files,
        languages_of,
        lay_out,
        read_corpus,
        split_corpus,
        write_all,
    )
    from nmt.machine import bytes_here
    from nmt.profile import look

    out.refuse_standard_output(config, "CONFIG.toml")
    named = {"validation": validation, "test": test}
    prefixes = {name: prefix for name, prefix in named.items() if prefix is not None}
    languages = languages_of(source, target, source_language, target_language)
    check_place(config, [source, target, *given_files(prefixes.values(), languages)], force=force)
    corpus = read_corpus(source, target, languages)
    given = {name: list(read_parallel(prefix, *languages)) for name, prefix in prefixes.items()}
    split = split_corpus(corpus, given)
    profile = look(split.train)
    plan = fit_tokenizer(profile)
    layout = lay_out(config, corpus, prefixes, split)
    choices = advise(profile, plan, layout, bytes_here=bytes_here())
    command = f"nmt train {shlex.quote(str(config))}"
    heading = f"Written by `nmt init` for {source} and {target}. Change what you like, then:\n{command}"
    write_all(config, render(choices, heading), layout)
    for line in summary(corpus, split, profile, layout, choices):
        out.note(line)
    for warning in warnings(given, profile, choices):
        out.warn(warning)
    out.note(f"wrote       {config}{f' and {layout.folder}' if layout.written else ''}")
    out.note(f"next        {command}")


def summary(
    corpus: Corpus, split: Split, profile: Profile, layout: Layout, choices: list[Choice]
) -> list[str]:
    """What was seen and chosen."""
    chosen = {choice.key: choice.value for choice in choices}
    lines = [f"corpus      {len(corpus.pairs):,} pairs"]
    lines += [
        f"{role:<12}{path}: {language}, {' and '.join(side.scripts)}, {side.words:.1f} words and "
        f"{side.characters:.0f} characters a line"
        for role, path, language, side in (
            ("source", corpus.source, layout.languages[0], profile.source),
            ("target", corpus.target, layout.languages[1], profile.target),
        )
    ]
    if layout.held_out:
        sets = " and ".join(f"{count:,} for {name}" for name, count in layout.held_out.items())
        lines.append(f"held out    {sets}")
    if split.removed:
        what = "left out of training" if layout.written else "those with its source will be dropped"
        lines.append(f"overlap     {split.removed:,} pairs repeat a validation or test line; {what}")
    unwanted = [(row.count, row.reason) for row in profile.dropped]
    again = profile.pairs - len(profile.kept) - sum(count for count, _ in unwanted)
    why = ["duplicate"] * profile.drop_duplicates + ["copy"] * profile.drop_copies
    if again:
        unwanted.append((again, " or ".join(why)))
    dropped = "".join(f"; {count:,} {reason}" for count, reason in unwanted)
    lines += [
        f"training    {len(profile.kept):,} usable pairs of {profile.pairs:,}{dropped}",
        f"chosen      {chosen['architecture']} {chosen['preset']}, {chosen['vocabulary_size']:,} "
        f"{'shared ' if chosen['shared'] else ''}{chosen['type']} subwords"
        f"{'' if chosen['shared'] else ' for each language'}, {chosen['max_steps']:,} steps: "
        f"{config_says(choices)}",
    ]
    return lines


def config_says(choices: list[Choice]) -> str:
    """How long training takes, in the words of the configuration."""
    return next(choice.reason for choice in choices if choice.key == "max_steps")


def warnings(given: dict[str, Pairs], profile: Profile, choices: list[Choice]) -> list[str]:
    """What the user should know before an hour of training."""
    from nmt.holdout import share_lines

    found = []
    if len(given) == 2 and (shared := share_lines(given["validation"], given["test"])):
        found.append(f"{shared:,} pairs of the test set repeat a line of the validation set")
    if len(profile.kept) < 10_000:
        found.append(
            f"{len(profile.kept):,} pairs are few: expect translations of short, familiar sentences only"
        )
    if any(choice.key == "preset" and choice.value != "tiny" for choice in choices):
        found.append("this configuration wants a GPU; on a CPU it takes days")
    return found
