"""The page of a report: what it holds, and what it does in a browser, on a phone and with a keyboard."""

from __future__ import annotations

import base64
import copy
import hashlib
import json
import re
from collections.abc import Iterator
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from browser import Browser
from reported import HOSTILE, RUNS, runs_of

from nmt.report import report
from nmt.report_page import report_page

SECTIONS = ["scores", "curves", "configuration", "length", "sentences", "attention", "cost", "environment"]


@pytest.fixture(scope="module")
def facts(tiny_run: Path) -> dict[str, Any]:
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(runs_of(tiny_run))
        return report(
            [Path(run) for run in RUNS], test="corpus/test", max_sentences=5, command=["nmt", "report"]
        )


@pytest.fixture(scope="module")
def single(tiny_run: Path) -> dict[str, Any]:
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(runs_of(tiny_run))
        return report([Path(RUNS[0])], max_sentences=3)


@pytest.fixture(scope="module")
def hostile(facts: dict[str, Any]) -> dict[str, Any]:
    """Wherever text of others may be: in sentences, names of runs and files, settings and warnings."""
    found = copy.deepcopy(facts)
    nasty = [source for source, _ in HOSTILE if source]
    rows = found["sentences"]["rows"]
    for number, row in enumerate(rows):
        row["source"], row["reference"] = nasty[number % len(nasty)], nasty[(number + 1) % len(nasty)]
        for place, system in enumerate(row["systems"]):
            system["text"] = nasty[(number + 2 + place) % len(nasty)]
            system["flags"] = ["copy"]
    for one in found["sentences"]["lists"]:
        one["title"] = f"Best by {nasty[1]} {'m' * 200}"
    for one in found["attention"]["sentences"]:
        one["why"] = nasty[1]
        for drawn in one["maps"]:
            drawn["rows"] = (nasty * 20)[: len(drawn["rows"])]
            drawn["columns"] = (nasty * 20)[: len(drawn["columns"])]
    for row in found["configuration"]["rows"]:
        row["values"] = nasty[:3]
    for command in found["commands"]:
        command["train"] = command["evaluate"] = nasty[0]
    found["runs"][0]["warnings"] = {"count": 5, "first": nasty}
    found["runs"][0]["training_data"] = [{"file": text, "sha256": text} for text in nasty]
    found["test_set"]["notes"] = nasty
    text = json.dumps(found)
    for name, replacement in (("tiny", nasty[0]), ("other", "\u202e" + "m" * 200)):
        text = text.replace(json.dumps(name), json.dumps(replacement))
    changed: dict[str, Any] = json.loads(text)
    return changed


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with Browser(tmp_path_factory.mktemp("browser")) as opened:
        yield opened


class Shown:
    """A report in the browser."""

    def __init__(self, browser: Browser, folder: Path):
        self.browser, self.file = browser, folder / "report.html"

    def __call__(self, facts: dict[str, Any], **options: Any) -> Browser:
        self.file.write_text(report_page(facts), encoding="utf-8")
        self.browser.complaints.clear()
        self.browser.requests.clear()
        self.browser.open(self.file.as_uri(), **options)
        return self.browser

    def check(self) -> None:
        """Nothing went wrong, and nothing but the page was asked for."""
        assert self.browser.complaints == []
        assert set(self.browser.requests) - {"about:blank", "data:,"} == {self.file.as_uri()}


@pytest.fixture
def shown(browser: Browser, tmp_path: Path) -> Iterator[Shown]:
    made = Shown(browser, tmp_path)
    yield made
    made.check()


# What it holds


class Parsed(HTMLParser):
    """Attributes by their names, and what stands in scripts and styles."""

    def __init__(self, page: str):
        super().__init__()
        self.attributes: list[tuple[str, str]] = []
        self.texts: dict[str, str] = {}
        self._inside = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.attributes += [(name, value or "") for name, value in attrs]
        if tag in ("script", "style"):
            self._inside = "data" if ("type", "application/json") in attrs else tag
            assert self._inside not in self.texts
            self.texts[self._inside] = ""

    def handle_endtag(self, tag: str) -> None:
        self._inside = ""

    def handle_data(self, data: str) -> None:
        if self._inside:
            self.texts[self._inside] += data


def test_nothing_outside_is_named(facts: dict[str, Any]) -> None:
    parsed = Parsed(report_page(facts))
    for name, value in parsed.attributes:
        assert not name.startswith("on")
        if name in ("src", "href", "action", "srcset", "data"):
            assert value == "data:," or value.startswith("#")
    code = parsed.texts["script"].replace('"http://www.w3.org/2000/svg"', "")  # the name of a language
    for text in (code, parsed.texts["style"]):
        found = re.findall(
            r"https?:|//\w|url\(|@import|fetch\(|XMLHttp|WebSocket|import\(|innerHTML|eval\(", text
        )
        assert found == []


def test_the_policy_allows_this_script_and_this_style_alone(facts: dict[str, Any]) -> None:
    parsed = Parsed(report_page(facts))
    policy = next(value for _, value in parsed.attributes if "default-src" in value)
    assert "default-src 'none'" in policy
    for kind in ("script", "style"):
        digest = base64.b64encode(hashlib.sha256(parsed.texts[kind].encode()).digest()).decode()
        assert f"{kind}-src 'sha256-{digest}'" in policy


def test_hostile_text_is_data(hostile: dict[str, Any], facts: dict[str, Any]) -> None:
    page = report_page(hostile)
    parsed = Parsed(page)
    assert json.loads(parsed.texts["data"]) == hostile
    assert "<" not in parsed.texts["data"]
    assert parsed.texts["data"].isascii()
    assert parsed.texts["script"] == Parsed(report_page(facts)).texts["script"]


# In a browser


def test_every_section_is_there(shown: Shown, facts: dict[str, Any]) -> None:
    page = shown(facts)
    assert page.evaluate("[...document.querySelectorAll('main > section')].map((s) => s.id)") == [
        *SECTIONS,
        "commands",
    ]
    assert page.evaluate(
        "[...document.querySelectorAll('nav a')].every((a) => document.querySelector(a.hash))"
    )
    levels = page.evaluate("[...document.querySelectorAll('h1,h2,h3,h4')].map((h) => Number(h.tagName[1]))")
    assert levels[0] == 1
    assert all(later - earlier <= 1 for earlier, later in pairwise(levels))
    text = page.evaluate("document.querySelector('#scores').textContent")
    for row in facts["scores"]:
        assert f"{row['score']:,.2f}" in text
        for one in row["comparisons"]:
            assert ("equal" if not one["differs"] else f"p {one['p_value']:.4f}") in text
    assert page.evaluate("document.querySelectorAll('.chart polyline').length") == 3 * len(facts["curves"])
    keys = page.evaluate(
        "[...document.querySelectorAll('#configuration tbody th')].map((k) => k.textContent)"
    )
    assert keys == [row["key"] for row in facts["configuration"]["rows"]]
    cells = page.evaluate("document.querySelectorAll('#attention .cell').length")
    first = facts["attention"]["sentences"][0]["maps"]
    assert cells == sum(weight >= 1 for drawn in first for row in drawn["weights"] for weight in row)


def test_one_run(shown: Shown, single: dict[str, Any]) -> None:
    page = shown(single)
    assert page.evaluate("document.querySelectorAll('main > section').length") == len(SECTIONS) + 1
    assert "validation set" in page.evaluate("document.querySelector('#scores .note').textContent")
    row = page.evaluate("document.querySelector('#configuration tbody').textContent")
    assert "tokenizer.vocabulary_size4008000" in row


def test_a_run_of_which_little_is_known(shown: Shown, single: dict[str, Any]) -> None:
    """An old run: no environment, no curves but one validation, no attention, no flags."""
    bare = copy.deepcopy(single)
    for curve in bare["curves"]:
        for run in curve["runs"]:
            run["points"] = [[7, 1.0, 0.0]] if curve["id"] == "bleu" else []
    about = bare["runs"][0]
    for key in ("processor", "cores", "target_tokens", "target_tokens_per_second", "best_train_seconds"):
        about[key] = None
    about.update(environment={}, training_data=[], gpus=[])
    bare["attention"] = {"sentences": [], "without": ["tiny"], "parts": 100}
    bare["commands"] = [{"run": "tiny", "train": None, "evaluate": None}]
    bare["command"] = None
    page = shown(bare)
    assert page.evaluate("document.querySelectorAll('.chart').length") == 1
    assert "Without attention: tiny." in page.evaluate("document.querySelector('#attention').textContent")


def tabbed(page: Browser, most: int = 400) -> Iterator[str]:
    """What the Tab key reaches, one after another, from the page's beginning."""
    script = """(() => { const e = document.activeElement; if (!e || e === document.body) return null;
        const style = getComputedStyle(e);
        const unseen = style.outlineStyle === "none" || style.outlineWidth === "0px";
        if (unseen) return "focus unseen: " + e.outerHTML.slice(0, 80);
        return e.getAttribute("aria-label") || e.name || e.textContent.slice(0, 60) || e.tagName; })()"""
    for _ in range(most):
        page.press("Tab")
        name = page.evaluate(script)
        if name is None:
            return
        yield name
    raise AssertionError("the Tab key finds no end")


def test_a_keyboard_reaches_everything_and_focus_is_seen(shown: Shown, facts: dict[str, Any]) -> None:
    page = shown(facts)
    names = list(tabbed(page))
    assert not [name for name in names if name.startswith("focus unseen")]
    assert names[:2] == ["To the report", "Scores"]
    for curve in facts["curves"]:
        assert f"{curve['title']}: arrow keys read values" in names
    controls = "select, input[type=search], button, summary, [role=slider], .scroll, pre"
    assert page.evaluate(f"[...document.querySelectorAll('{controls}')].every((e) => e.tabIndex >= 0)")
    reached = page.evaluate(f"document.querySelectorAll('nav a, {controls}').length")
    inside_closed = page.evaluate("document.querySelectorAll('details:not([open]) .scroll').length")
    assert len(names) == reached - inside_closed + 2  # the skip link, and the one radio button that is chosen


def focus(page: Browser, selector: str) -> None:
    page.evaluate(f"document.querySelector({json.dumps(selector)}).focus()")


def test_curves_with_a_keyboard(shown: Shown, facts: dict[str, Any]) -> None:
    page = shown(facts)
    value = "document.querySelector('.chart svg[role=slider]').getAttribute('aria-valuetext')"
    loss = facts["curves"][0]["runs"][0]["points"]
    focus(page, ".chart svg[role=slider]")
    page.press("Home")
    text = page.evaluate(value)
    assert text.startswith(f"step {loss[0][0]}: tiny {float(f'{loss[0][2]:.4g}'):g}; other ")
    page.press("ArrowRight")
    assert page.evaluate(value).startswith(f"step {loss[1][0]}: tiny {float(f'{loss[1][2]:.4g}'):g}")
    page.press("End", "ArrowRight", "ArrowLeft", "ArrowRight")
    assert page.evaluate(value).startswith(f"step {loss[-1][0]}: ")
    assert page.evaluate("document.querySelector('.chart .readout').textContent") == page.evaluate(value)
    # Time in place of steps.
    focus(page, "input[name=axis]")
    page.press("ArrowRight")
    assert page.evaluate("document.querySelector('input[name=axis]:checked').value") == "seconds"
    assert " s: " in page.evaluate(value)
    # A run is switched off, and on.
    focus(page, ".legend button")
    before = page.evaluate("document.querySelectorAll('.chart polyline').length")
    page.press(" ")
    assert page.evaluate("document.querySelector('.legend button').getAttribute('aria-pressed')") == "false"
    assert page.evaluate("document.querySelectorAll('.chart polyline').length") == before - len(
        facts["curves"]
    )
    assert "tiny" not in page.evaluate(value)
    page.press("Enter")
    assert page.evaluate("document.querySelectorAll('.chart polyline').length") == before
    # The values for a screen reader.
    focus(page, ".chart details summary")
    page.press("Enter")
    page.wait("document.querySelector('.chart details tbody')")
    rows = page.evaluate("document.querySelectorAll('.chart details tbody')[0].rows.length")
    assert rows == sum(len(run["points"]) for run in facts["curves"][0]["runs"])


def test_sentences_are_listed_and_filtered(shown: Shown, facts: dict[str, Any]) -> None:
    page = shown(facts)
    rows, lists = facts["sentences"]["rows"], facts["sentences"]["lists"]
    lines = (
        "[...document.querySelectorAll('.sentence h3')].map((h) => Number(h.textContent.replace(/\\D/g, '')))"
    )
    for number, one in enumerate(lists):
        page.evaluate(
            f"""(() => {{ const list = document.querySelector('#sentences select'); list.value = {number};
            list.dispatchEvent(new Event('change')); }})()"""
        )
        assert page.evaluate(lines) == [rows[place]["line"] for place in one["rows"]]
    page.evaluate("document.querySelector('#sentences select').focus()")
    page.press("End")
    assert page.evaluate(lines) == [row["line"] for row in rows]  # all of them
    wanted = rows[0]["source"].split()[0]
    focus(page, "#sentences input[type=search]")
    page.press(*wanted.upper())
    texts = [
        json.dumps(
            [row["source"], row["reference"], *(of["text"] for of in row["systems"])], ensure_ascii=False
        )
        for row in rows
    ]
    expected = [row["line"] for row, text in zip(rows, texts, strict=True) if wanted.lower() in text.lower()]
    assert page.evaluate(lines) == expected
    status = page.evaluate("document.querySelector('#sentences [role=status]').textContent")
    assert status == f"{len(expected)} of {len(rows)} sentences"


@pytest.mark.parametrize("dark", [False, True])
def test_a_phone(shown: Shown, facts: dict[str, Any], hostile: dict[str, Any], dark: bool) -> None:
    for of in (facts, hostile):
        page = shown(of, width=360, height=640, dark=dark)
        page.evaluate("document.querySelectorAll('details').forEach((d) => { d.open = true; })")
        page.wait("[...document.querySelectorAll('.chart details')].every((d) => d.querySelector('tbody'))")
        widths = "[document.documentElement.scrollWidth, document.documentElement.clientWidth]"
        assert page.evaluate(widths) == [360, 360]
        wide = """[...document.querySelectorAll('main *')].filter((e) => !e.closest('.scroll, .chart svg')
            && e.getBoundingClientRect().right > 361).map((e) => e.outerHTML.slice(0, 100))"""
        assert page.evaluate(wide) == []
        colours = page.evaluate(
            "(() => { const s = getComputedStyle(document.body); return [s.color, s.backgroundColor]; })()"
        )
        ink, paper = (sum(map(int, re.findall(r"\d+", colour)[:3])) for colour in colours)
        assert (ink > paper) == dark
        shown.check()


def test_hostile_text_is_shown_as_text(shown: Shown, hostile: dict[str, Any]) -> None:
    page = shown(hostile)
    nasty = HOSTILE[0][0]
    title = page.evaluate("document.title")
    assert title.startswith(f"Report of {nasty}")
    assert page.evaluate("document.scripts.length") == 2
    assert page.evaluate("document.querySelectorAll('section').length") == len(SECTIONS) + 1
    page.evaluate(
        """(() => { const list = document.querySelector('#sentences select'); list.value = 'all';
        list.dispatchEvent(new Event('change')); })()"""
    )
    texts = page.evaluate("[...document.querySelectorAll('.sentence .text')].map((t) => t.textContent)")
    assert nasty in texts
    assert "x" * 10_000 in texts
    turned = [text for text in texts if "gnorw" in text]
    assert turned
    assert set(turned) == {"‹U+202E›gnorw‹U+202C› ‹U+2066›x‹U+2069›"}
    assert not re.search("[\u202a-\u202e\u2066-\u2069\x1b]", page.evaluate("document.body.innerText"))
    assert page.evaluate("document.querySelector('#commands pre').textContent") == nasty


def test_it_prints(shown: Shown, facts: dict[str, Any]) -> None:
    page = shown(facts, dark=True)
    page.call("Emulation.setEmulatedMedia", media="print", features=[])
    for selector in ("nav", ".controls", ".readout"):
        assert page.evaluate(f"getComputedStyle(document.querySelector('{selector}')).display") == "none"
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert page.call("Page.printToPDF")["data"]
    page.call("Emulation.setEmulatedMedia", media="", features=[])


def test_without_scripts_it_says_why_it_is_empty(facts: dict[str, Any]) -> None:
    assert "<noscript>This page is drawn with JavaScript" in report_page(facts)
