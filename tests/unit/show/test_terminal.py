import dataclasses
import io

import numpy as np
import pytest
from rich.cells import cell_len
from rich.console import Console

from elision import recipes
from elision.show.explain import Explanation, Fate, Token
from elision.show.source import explain_texts
from elision.show.terminal import picture, print_explanation, rows, shrink


def token(piece, target=None, fate=Fate.UNTOUCHED, original=None, **fields):
    settings = {"dropped": (), "special": False, "position": 0, "document": 1, "example": 0, "segment": None}
    return Token(piece=piece, original=original or (piece,), target=target, fate=fate, **{**settings, **fields})


def explanation(tokens, visible=None, restores="itself"):
    visible = np.ones((len(tokens), len(tokens)), bool) if visible is None else visible
    return Explanation("a-recipe", "Paper", "Idea.", (), tuple(tokens), visible, restores, (), ("One.", "Two."))


def printed(shown, width, **options):
    console = Console(width=width, file=io.StringIO(), highlight=False)
    print_explanation(shown, console, **options)
    return console.file.getvalue()


def test_rows_stack_what_is_read_over_what_is_restored():
    tokens = [
        token("[CLS]", special=True, segment=0),
        token("[MASK]", "cat", Fate.MASKED, ("cat",), position=1, segment=0),
        token("zoo", "sat", Fate.REPLACED, ("sat",), position=2, segment=1),
        token("on", "on", Fate.KEPT, position=3, segment=1),
    ]
    (block,) = rows(explanation(tokens), 80)
    assert [line.rstrip() for line in block.plain.split("\n")] == [
        "reads     [CLS] [MASK] zoo    on",
        "restores  ·     cat    sat    on",
        "fate            mask   random kept",
        "segment   A━━━━━━━━━━━ B━━━━━━━━━━",
        "position  0     1      2      3",
    ]


def test_a_causal_text_shows_the_next_token_of_each():
    (block,) = rows(explanation([token("the", "cat"), token("cat", ".", position=1)], restores="next"), 80)
    assert [line.rstrip() for line in block.plain.split("\n")] == [
        "reads     the  cat",
        "next      →cat →.",
        "position  0    1",
    ]


def test_a_change_that_no_target_tells_gets_a_row_of_what_stood_there():
    tokens = [token("a"), token("[MASK]", None, Fate.MASKED, ("b", "c")), token("e", dropped=("d",))]
    (block,) = rows(explanation(tokens), 80)
    assert block.plain.split("\n")[0].split() == ["stood", "a", "b", "c", "(d)", "e"]


def test_documents_are_told_apart_when_there_are_several():
    (block,) = rows(explanation([token("a"), token("b", document=2)]), 80)
    assert "document  1 2" in block.plain


@pytest.mark.parametrize("width", [40, 80, 120])
@pytest.mark.parametrize("name", ["bert-tiny", "gpt2-tiny"])
def test_no_line_is_wider_than_the_terminal(name, width):
    text = "고양이가 매트 위에 앉았다. The cat sat on the mat. नमस्ते दुनिया। 🙂 猫坐在垫子上。"
    out = printed(explain_texts(recipes.get(name), [text]), width)
    assert max(map(cell_len, out.split("\n"))) <= width


@pytest.mark.parametrize("name", ["bert-tiny", "gpt2-tiny"])
def test_the_output_holds_every_piece_target_and_sentence(name):
    shown = explain_texts(recipes.get(name), ["The cat sat on the mat. It was a cold morning."])
    out = printed(shown, 200)
    for one in shown.tokens:
        assert one.piece in out and (one.target or "") in out
    flat = " ".join(out.split())
    for sentence in (shown.idea, *shown.sentences, *shown.labels, *shown.notes):
        assert all(word in flat for word in sentence.split())


def test_only_the_first_tokens_of_a_long_example_are_printed_unless_all_are_wanted():
    shown = explanation([token(f"w{i}") for i in range(300)])
    cut, whole = printed(shown, 80), printed(shown, 80, max_tokens=None)
    assert "w191" in cut and "w192" not in cut and "108 more tokens" in cut
    assert "w299" in whole and "more tokens" not in whole


def test_a_small_picture_has_a_named_row_for_each_token():
    shown = explanation([token("the"), token("cat")], np.array([[True, False], [True, True]]))
    lines = printed_renderable(picture(shown, 60))
    assert "who sees whom" in lines[0] and "rows look, columns are seen" in lines[-1]
    assert [line.strip("│").rstrip() for line in lines[1:-1]] == ["the ██·", "cat ████"]


def test_a_large_picture_puts_two_rows_into_a_line():
    size = 40
    shown = explanation([token("a") for _ in range(size)], np.tri(size, dtype=bool))
    lines = printed_renderable(picture(shown, 60))
    assert len(lines) == size // 2 + 2
    assert lines[1] == "│█▄" + " " * (size - 2) + "│"
    assert lines[-2] == "│" + "█" * (size - 1) + "▄│"


def printed_renderable(renderable):
    console = Console(width=70, file=io.StringIO())
    console.print(renderable)
    return console.file.getvalue().rstrip("\n").split("\n")


def test_a_shrunk_picture_shows_a_cell_when_half_of_it_is_visible():
    shown = explanation([token("a") for _ in range(4)], np.tri(4, dtype=bool))
    visible, _ = shrink(shown, 2)
    assert visible.tolist() == [[True, False], [True, True]]


def test_columns_that_show_a_mask_have_a_colour_of_their_own():
    tokens = [token("a"), token("[MASK]", "b", Fate.MASKED, ("b",)), token("c", document=2)]
    colours = shrink(explanation(tokens), 60)[1].tolist()
    assert len(set(colours)) == 3


def test_a_vowel_sign_on_its_own_sits_on_a_circle():
    (block,) = rows(explanation([token("\u093f")]), 80)
    assert "◌\u093f" in block.plain


def test_control_characters_of_a_text_never_reach_the_terminal():
    shown = dataclasses.replace(explanation([token("a\x1b[31mb")]))
    assert "\x1b[31m" not in printed(shown, 80)
