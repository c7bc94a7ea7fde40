"""The page of `nmt attention`: what it holds, and what it does in a browser."""

from __future__ import annotations

import base64
import html.parser
import json
import re
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from browser import Browser
from support import Nmt

from nmt.attention_maps import Pair, attention_maps, make_pairs, merge_words, words_of
from nmt.attention_page import attention_page
from nmt.checkpoint import LoadedModel, load_model
from nmt.page import fill_page, fill_table

RUN = "runs/tiny"
SOURCES = ["The dog sees the old house.", "A woman gave him new keys.", "The dog sees the dog."]
TARGETS = ["Der Hund sieht das alte Haus.", "Eine Frau gab ihm neue Schlüssel.", "Der Hund sieht den Hund."]
HOSTILE = [
    "</script><script>document.title = 'broken'</script>",
    "<!--<script>",
    "\" ' ` ${document.title} \\u003c &lt; &amp;</title> ]]> {{data}} {{script}}",
    "\u202egnorw\u202c \u2066x\u2069 \u200f\u200d\u00ad",
    "שלום עולם 漢字 😀👩‍👩‍👧 ▁ $x$ \u2028 \u2029 \u0085 \x00 \x1b[31m \ufeff",
    "x" * 90,
    "a\u0300\u0301\u0302" * 8 + " \t ",
]
LONG = "x" * 10_000


@pytest.fixture(scope="module")
def loaded(tiny_run: Path) -> LoadedModel:
    return load_model(tiny_run / RUN)


def page_of(loaded: LoadedModel, sources: list[str], targets: list[str] | None = None, **options: Any) -> str:
    return attention_page(loaded, make_pairs(loaded, sources, targets)[0], title="A model", **options)


def data_of(page: str) -> dict[str, Any]:
    """What a browser finds in the element `data`."""
    found: dict[str, Any] = json.loads(scripts_of(page)["application/json"])
    return found


def scripts_of(page: str) -> dict[str, str]:
    scripts: dict[str, str] = {}

    class Parser(html.parser.HTMLParser):
        kind: str | None = None

        def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
            if tag == "script":
                self.kind = dict(attributes).get("type") or "script"
                assert self.kind not in scripts
                scripts[self.kind] = ""

        def handle_data(self, data: str) -> None:
            if self.kind is not None:
                scripts[self.kind] += data

        def handle_endtag(self, tag: str) -> None:
            self.kind = None

    Parser().feed(page)
    return scripts


# What it holds


def unpacked(map_: dict[str, Any]) -> np.ndarray[Any, Any]:
    raw = zlib.decompress(base64.b64decode(map_["weights"]))
    return np.frombuffer(raw, dtype="<u2").reshape(map_["shape"]) / 1000


def test_weights_are_those_of_the_model_to_three_digits(loaded: LoadedModel) -> None:
    pairs, _ = make_pairs(loaded, SOURCES, TARGETS)
    maps = dict(attention_maps(loaded, pairs))
    sentences = data_of(page_of(loaded, SOURCES, TARGETS))["sentences"]
    assert [sentence["line"] for sentence in sentences] == [1, 2, 3]
    for index, sentence in enumerate(sentences):
        assert (sentence["source"], sentence["target"]) == (SOURCES[index], TARGETS[index])
        assert list(sentence["maps"]) == ["encoder", "decoder", "cross"]
        for kind, map_ in sentence["maps"].items():
            np.testing.assert_allclose(unpacked(map_), maps[index][kind], atol=0.0005001)
            shape = [len(sentence["sides"][map_[side]]["tokens"]) for side in ("rows", "columns")]
            assert map_["shape"][2:] == shape
            for side in ("rows", "columns"):
                words = sentence["sides"][map_[side]]["words"]
                assert sum(tokens for _, tokens in words) == len(sentence["sides"][map_[side]]["tokens"])
    assert sentences[0]["sides"]["source"]["words"][-1] == ["</s>", 1]
    assert [word for word, _ in sentences[0]["sides"]["read"]["words"]] == ["<s>", *TARGETS[0].split()]


def test_hostile_text_is_kept_and_breaks_nothing(loaded: LoadedModel) -> None:
    page = page_of(loaded, HOSTILE, HOSTILE[::-1])
    sentences = data_of(page)["sentences"]
    assert [sentence["source"] for sentence in sentences] == HOSTILE
    assert [sentence["target"] for sentence in sentences] == HOSTILE[::-1]
    # The page around the data is that of other data.
    assert outside_data(page) == outside_data(page_of(loaded, SOURCES, TARGETS))
    assert all(ord(character) < 128 for character in scripts_of(page)["application/json"])


def outside_data(page: str) -> str:
    return re.sub(r'(id="data">)[^<]*', r"\1", page)


def test_title_is_text() -> None:
    page = fill_page("attention", "<b>&\"'{{data}}", {"x": "{{title}}"})
    assert "<title>&lt;b&gt;&amp;&quot;&#x27;{{data}}</title>" in page
    assert json.loads(scripts_of(page)["application/json"]) == {"x": "{{title}}"}
    assert "<b>" not in fill_table("<b>", ["<b>"], [[("<b>", None)] * 4], ["<b>"])


@pytest.mark.parametrize("made", ["attention", "heads"])
def test_nothing_outside_is_named(loaded: LoadedModel, made: str) -> None:
    page = page_of(loaded, SOURCES) if made == "attention" else fill_table("t", ["a"], [[("b", None)]])
    assert "default-src 'none'" in page
    assert "unsafe" not in page
    assert not re.search(r"https?:|@import|url\(|fetch\(|XMLHttp|WebSocket|\bimport\b", page)
    assert set(re.findall(r"(?:src|href)=\S+", page)) == {'href="data:,">'}


# In a browser


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with Browser(tmp_path_factory.mktemp("chromium")) as found:
        yield found


@pytest.fixture
def opened(browser: Browser, loaded: LoadedModel, tmp_path: Path) -> Iterator[Browser]:
    """The page of three sentences. At the end: nothing was complained about or asked for but the page."""
    (tmp_path / "a.html").write_text(page_of(loaded, SOURCES, TARGETS))
    browser.complaints.clear()
    browser.requests.clear()
    browser.open((tmp_path / "a.html").as_uri())
    yield browser
    assert browser.complaints == []
    assert {address.split("#")[0] for address in browser.requests} - {"data:,", "about:blank"} == {
        (tmp_path / "a.html").as_uri()
    }


TITLE = "document.getElementById('map-title').textContent"
READOUT = "document.getElementById('readout').textContent"
SOURCE = "document.getElementById('source').textContent"


def test_keys(opened: Browser, loaded: LoadedModel) -> None:
    page = opened
    assert page.evaluate(TITLE) == "attention over the source, mean of layers, mean of heads"
    assert page.evaluate(SOURCE) == SOURCES[0]
    (_, maps), *_ = attention_maps(loaded, make_pairs(loaded, SOURCES[:1], TARGETS[:1])[0])
    weights = maps["cross"].mean(axis=(0, 1))

    def cell(row: int, column: int) -> None:
        """What is said is the weight of that cell."""
        said = page.evaluate(READOUT)
        assert f"(row {row + 1} of {weights.shape[0]}, column {column + 1} of {weights.shape[1]})" in said
        assert float(re.search(r": (\d\.\d{3}) ", said)[1]) == pytest.approx(  # type: ignore[index]
            weights[row, column], abs=0.0011
        )

    cell(0, 0)
    page.evaluate("document.getElementById('map').focus()")
    page.press("ArrowRight", "ArrowDown", "ArrowDown")
    cell(2, 1)
    page.press("End")
    cell(2, weights.shape[1] - 1)
    page.press("ArrowRight", "Home", "ArrowUp")
    cell(1, 0)
    steps = [
        ("l", "attention over the source, layer 1, mean of heads"),
        ("h", "attention over the source, layer 1, head 1"),
        ("]", "attention over the source, layer 1, head 2"),
        ("[", "attention over the source, layer 1, head 1"),
        ("t", "encoder self-attention, layer 1, head 1"),
        ("t", "decoder self-attention, layer 1, head 1"),
        ("L", "decoder self-attention, mean of layers, head 1"),
        ("H", "decoder self-attention, mean of layers, mean of heads"),
    ]
    for key, title in steps:
        page.press(key)
        page.wait(f"{TITLE} === {json.dumps(title)}")
    page.press("n")
    page.wait(f"{SOURCE} === {json.dumps(SOURCES[1])}")
    page.press("p", "p")
    page.wait(f"{SOURCE} === {json.dumps(SOURCES[2])}")
    assert "line=3" in page.evaluate("location.hash")
    assert page.evaluate("document.activeElement.id") == "map"


def test_words_are_merged_as_in_python(opened: Browser, loaded: LoadedModel) -> None:
    (pair,), _ = make_pairs(loaded, SOURCES[:1], TARGETS[:1])
    ((_, maps),) = attention_maps(loaded, [pair])
    rows, columns = (words_of(loaded, pair, side) for side in ("written", "source"))
    weights = merge_words(maps["cross"].mean(axis=(0, 1)), rows, columns)
    assert len(rows) == 7
    opened.press("w")
    opened.wait("document.getElementById('words').checked")
    found = opened.evaluate("[...shown.weights]")
    np.testing.assert_allclose(np.reshape(found, weights.shape), weights, atol=0.003)
    assert opened.evaluate("shown.rows") == [word.text for word in rows]
    best = columns[int(weights[0].argmax())].text
    first = "document.querySelector('#row th').textContent"
    assert opened.evaluate(first) == best


def test_a_keyboard_reaches_everything_in_view(opened: Browser) -> None:
    reached = []
    for _ in range(8):
        opened.press("Tab")
        reached.append(
            opened.evaluate("document.activeElement.id || document.activeElement.getAttribute('aria-label')")
        )
        outline = opened.evaluate("getComputedStyle(document.activeElement).outlineStyle")
        assert outline == "solid", f"focus on {reached[-1]} is not seen"
    heads = [f"head {head} of the mean of layers" for head in (1, 2)]
    assert [name for name in reached if name != "box"][:7] == [
        "sentence", "kind", "layer", "head", "words", *heads
    ]  # fmt: skip
    opened.evaluate("document.querySelector('#thumbs button').focus()")
    opened.press("Enter")
    opened.wait(f"{TITLE}.endsWith('head 1')")
    assert opened.evaluate("document.activeElement.getAttribute('aria-pressed')") == "true"


def test_a_pointer_shows_weights(opened: Browser) -> None:
    x, y = opened.evaluate(
        "(() => { const at = document.getElementById('map').getBoundingClientRect();"
        "return [at.left + place.left + 2.5 * CELL, at.top + place.top + 1.5 * CELL]; })()"
    )
    opened.pointer(x, y)
    opened.wait(f"{READOUT}.includes('(row 2 of')")
    assert "column 3 of" in opened.evaluate(READOUT)
    opened.pointer(x + 26, y, "mousePressed")
    opened.pointer(x + 26, y, "mouseReleased")
    assert "column 4 of" in opened.evaluate(READOUT)


@pytest.mark.parametrize("dark", [False, True])
def test_a_phone(opened: Browser, loaded: LoadedModel, tmp_path: Path, dark: bool) -> None:
    longest = " ".join(SOURCES[:2] * 2)
    (tmp_path / "a.html").write_text(page_of(loaded, [longest, *HOSTILE], [longest, *HOSTILE]))
    opened.requests.clear()
    opened.open((tmp_path / "a.html").as_uri() + "#line=1", width=360, height=640, dark=dark)
    assert opened.evaluate("data.sentences.length") == 1 + len(HOSTILE)
    for _ in range(1 + len(HOSTILE)):
        assert opened.evaluate("innerWidth") == 360
        assert opened.evaluate("document.documentElement.scrollWidth") == 360
        assert opened.evaluate("document.title") == "A model"
        before = opened.evaluate("location.hash")
        opened.press("n")
        opened.wait(f"location.hash !== {json.dumps(before)}")
    # The map scrolls inside its box, and follows the cell.
    assert opened.evaluate("box.scrollWidth > box.clientWidth && box.scrollHeight > box.clientHeight")
    opened.evaluate("document.getElementById('map').focus()")
    opened.press("End")
    assert opened.evaluate("box.scrollLeft") > 0
    low = 100 if dark else 200
    paper = opened.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (int(re.findall(r"\d+", paper)[0]) > low) is not dark
    heights = "[...document.querySelectorAll('select, button')].map((e) => e.getBoundingClientRect().height)"
    assert min(opened.evaluate(heights)) >= 40, "too low to be tapped"


def test_a_sentence_of_many_tokens(browser: Browser, loaded: LoadedModel, tmp_path: Path) -> None:
    """10,000 characters without a blank in the text, and as many tokens as the model takes."""
    ids = loaded.source_tokenizer.encode("x")[-1:] * 400
    pair = Pair(1, LONG, LONG, ids, ids)
    (tmp_path / "a.html").write_text(attention_page(loaded, [pair], title="Long"))
    browser.complaints.clear()
    browser.open((tmp_path / "a.html").as_uri(), width=360, height=640)
    assert browser.evaluate("shown.weights.length") == 401 * 401
    assert browser.evaluate("document.documentElement.scrollWidth") == 360
    browser.press("w")
    browser.wait("document.getElementById('words').checked")
    assert browser.complaints == []


def test_an_address_shows_what_it_showed(opened: Browser) -> None:
    address = opened.evaluate("location.href").split("#")[0]
    opened.open(f"{address}#line=2&type=encoder&layer=1&head=2&words=1")
    opened.wait(f"{TITLE} === 'encoder self-attention, layer 1, head 2'")
    assert opened.evaluate(SOURCE) == SOURCES[1]
    assert opened.evaluate("document.getElementById('words').checked")
    opened.open(f"{address}#line=9&type=toString&layer=99&head=-1&words=x")
    assert opened.evaluate(SOURCE) == SOURCES[0]
    assert opened.evaluate(TITLE).startswith("attention over the source, layer 1")


def test_it_prints(opened: Browser) -> None:
    printed = base64.b64decode(opened.call("Page.printToPDF", printBackground=True)["data"])
    assert printed.startswith(b"%PDF")
    opened.call("Emulation.setEmulatedMedia", media="print")
    assert opened.evaluate("getComputedStyle(document.querySelector('.controls')).display") == "none"
    opened.call("Emulation.setEmulatedMedia", media="")


def test_the_table_of_heads_is_a_page(browser: Browser, tiny_run: Path, tmp_path: Path) -> None:
    nmt = Nmt(tiny_run)
    nmt("heads", RUN, "corpus/test.en", "corpus/test.de", "--output", tmp_path / "h.html")
    browser.complaints.clear()
    browser.requests.clear()
    browser.open((tmp_path / "h.html").as_uri(), width=360, height=640)
    assert browser.evaluate("document.documentElement.scrollWidth") == 360
    assert browser.evaluate("document.querySelectorAll('tbody tr').length") == 6
    shade = "getComputedStyle(document.querySelector('td.s10')).backgroundColor"
    assert browser.evaluate(shade) != browser.evaluate("getComputedStyle(document.body).backgroundColor")
    assert browser.complaints == []
    assert set(browser.requests) - {"data:,", "about:blank"} == {(tmp_path / "h.html").as_uri()}
