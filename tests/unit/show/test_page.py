import html.parser
import json
import re

import numpy as np
import pytest

from elision import recipes
from elision.show.explain import Fate
from elision.show.page import page
from elision.show.source import explain_texts

VOID = {"meta", "rect", "br", "hr", "img", "input", "link"}


class Document(html.parser.HTMLParser):
    """Checks that tags nest, and gathers what tests ask for."""

    def __init__(self, text):
        super().__init__()
        self.open, self.tags, self.attributes, self.texts = [], [], [], {}
        self.feed(text)
        self.close()
        assert not self.open, f"never closed: {self.open}"

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs
        if tag not in VOID:
            self.open.append(tag)
            self.texts.setdefault(tag, []).append("")

    def handle_startendtag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs

    def handle_endtag(self, tag):
        assert self.open and self.open[-1] == tag, f"</{tag}> closes {self.open[-1:]}"
        self.open.pop()

    def handle_data(self, data):
        for tag in set(self.open):
            self.texts[tag][-1] += data


@pytest.fixture(scope="module", params=["bert-tiny", "gpt2-tiny"])
def shown(request):
    text = "The <script>alert('x')</script> cat & the \"dog\" sat. It was cold. Nobody came."
    return explain_texts(recipes.get(request.param), [text, "A second text. It follows."], num_examples=2)


def test_the_page_is_one_well_formed_document_that_asks_for_nothing_else(shown):
    text = page(shown)
    document = Document(text)
    assert text.startswith("<!DOCTYPE html>")
    assert document.tags.count("html") == document.tags.count("body") == 1
    assert {name for name, _ in document.attributes}.isdisjoint({"src", "href", "srcset", "action", "data"})
    assert not re.search(r"https?:|//[a-z]|url\(|@import|fetch\(|XMLHttpRequest", text)
    assert "link" not in document.tags and "img" not in document.tags and "iframe" not in document.tags


def test_markup_in_the_text_is_shown_and_never_run(shown):
    document = Document(page(shown))
    # The data and our own script, and no third.
    assert document.tags.count("script") == 2
    assert "alert" not in "".join(document.texts["script"])
    joined = "".join(document.texts["ol"])
    assert "alert" in joined and "<" in joined and "&" in joined


def test_every_token_stands_in_the_ribbon_with_what_it_restores(shown):
    document = Document(page(shown))
    ribbon = document.tags.index("ol")
    assert document.tags[ribbon:].count("li") == len(shown.tokens)
    words = document.texts["li"][-len(shown.tokens) :]
    for token, said in zip(shown.tokens, words, strict=True):
        assert token.piece in said and (token.target or "") in said
        assert token.fate is Fate.UNTOUCHED or token.fate.value in said


def test_the_rows_that_the_script_reads_are_the_visibility(shown):
    data = next(json.loads(text) for text in Document(page(shown)).texts["script"] if text.startswith("[["))
    visible = np.zeros_like(shown.visible)
    for row, runs in enumerate(data):
        for begin, end in runs:
            visible[row, begin:end] = True
    assert (visible == shown.visible).all()


def test_the_picture_covers_exactly_what_is_visible(shown):
    text = page(shown)
    painted = np.zeros(shown.visible.shape, int)
    pattern = r'<rect class="seen colour-\d" x="(\d+)" y="(\d+)" width="(\d+)" height="(\d+)"/>'
    for x, y, width, height in (map(int, match) for match in re.findall(pattern, text)):
        painted[y : y + height, x : x + width] += 1
    assert (painted == shown.visible).all()


def test_every_part_and_setting_of_the_recipe_is_explained(shown):
    text = page(shown)
    for part in shown.parts:
        assert part.name in text
        assert all(f"<dt>{name} = " in text for name in part.settings)
