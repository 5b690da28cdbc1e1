"""Examples that have something to be written: where their tokens come from, and what is said of them."""

import dataclasses
import functools
import io

import numpy as np
import pytest
import torch
from rich.console import Console

from elision import recipes
from elision.data.answers import Answers
from elision.data.example import Example
from elision.data.noise import Denoising, Fragment, GivenAnswer, Noise, SpanCorruption
from elision.data.noise.span_corruption import pick_random_spans
from elision.model.language_model import LanguageModel
from elision.recipe import Recipe
from elision.show.explain import Explanation, explain
from elision.show.page import page
from elision.show.source import explain_texts, small_tokenizer
from elision.show.terminal import picture, rows
from elision.show.token import Fate
from elision.show.trace import NOWHERE, Trace, traced
from elision.text.tokenizer import Tokenizer, Unigram
from elision.text.vocabulary import Vocabulary
from tests import tiny

TEXT = "The cat sat on the mat. It was a cold morning, and nobody had lit the fire. Then the door opened."
OTHER = "Die Katze saß auf der Matte. Es war kalt."
SIZE = 200
FULL_STOP = 9


def vocabulary() -> Vocabulary:
    return dataclasses.replace(
        tiny.vocabulary(SIZE), full_stop=np.arange(SIZE) == FULL_STOP, sentinels=np.arange(SIZE - 1, SIZE - 30, -1)
    )


def framed(tokens: list[int]) -> Example:
    inputs = np.array([2, *tokens, 3])
    return Example(inputs, inputs < 6)


def run(noise: Noise, before: Example, seed: int, start: int | None = None) -> tuple[Example, Trace | None]:
    answers = Answers(start)
    rng = functools.partial(np.random.default_rng, seed)
    after = answers(noise(before, vocabulary(), rng()))
    return after, traced(noise, answers, before, after, vocabulary(), rng)


NOISES = [
    Denoising(),
    Denoising(permute_sentences=0.0, infill=0.0, mask=0.3, delete=0.2, insert=0.2, rotate=1.0),
    Denoising(random_share=0.5),
    Fragment(),
    SpanCorruption(),
]


@pytest.mark.parametrize("noise", NOISES, ids=repr)
def test_a_token_is_traced_to_a_place_that_holds_it_and_no_place_twice(noise: Noise) -> None:
    rng = np.random.default_rng(0)
    for seed in range(20):
        before = framed([*rng.integers(10, 16, 30).tolist(), FULL_STOP, *rng.integers(10, 16, 9).tolist()])
        after, trace = run(noise, before, seed)
        for places, ids in ((trace.inputs, after.inputs), (trace.targets, after.targets)):
            known = places != NOWHERE
            assert (before.inputs[places[known]] == ids[known]).all()
            assert len(np.unique(places[known])) == known.sum()
            # What is new is a mask, a sentinel, an end or a random token: no token of the text that went astray.
            assert known.sum() >= 0.2 * len(ids)


def test_the_trace_of_spans_is_what_the_noise_drew_though_all_tokens_are_alike() -> None:
    before = Example(np.full(40, 10), np.zeros(40, bool))
    for seed in range(10):
        _, trace = run(SpanCorruption(), before, seed, start=0)
        mask = pick_random_spans(40, 0.15, 3.0, np.random.default_rng(seed))
        assert trace.inputs[trace.inputs != NOWHERE].tolist() == np.flatnonzero(~mask).tolist()
        assert trace.targets[trace.targets != NOWHERE].tolist() == np.flatnonzero(mask).tolist()


def test_a_rotated_text_is_traced_around_the_corner() -> None:
    noise = Denoising(permute_sentences=0.0, infill=0.0, rotate=1.0)
    before = framed([10, 11, 10, 11, 10, 12])
    _, trace = run(noise, before, seed=1)
    first = int(trace.inputs[1])
    assert trace.inputs.tolist() == [0, *range(first, 7), *range(1, first), 7] and first > 1
    assert trace.targets.tolist() == list(range(8))


def test_a_translation_has_nothing_of_the_text_in_it() -> None:
    before = dataclasses.replace(framed([10, 11]), answer=np.array([11, 10, 12, 3]))
    _, trace = run(GivenAnswer(), before, seed=0, start=0)
    assert trace.inputs.tolist() == [0, 1, 2, 3]
    assert (trace.targets[:3] == NOWHERE).all()


def test_without_room_for_names_of_their_own_tokens_are_not_traced() -> None:
    before = framed(list(range(10, SIZE - 40)) * 2)
    assert run(Denoising(), before, seed=0)[1] is None


@pytest.fixture(scope="module")
def words() -> Tokenizer:
    """A tokenizer whose tokens w6, w7 ... are those of the vocabulary above."""
    import tokenizers

    names = ["<pad>", "<unk>", "<s>", "</s>", "<mask>", "<end>", *(f"w{i}" for i in range(6, SIZE))]
    raw = tokenizers.Tokenizer(tokenizers.models.WordLevel({name: i for i, name in enumerate(names)}, "<unk>"))
    raw.add_special_tokens(names[:6])
    roles = {"pad": "<pad>", "unk": "<unk>", "cls": "<s>", "sep": "</s>", "mask": "<mask>", "eos": "</s>"}
    return Tokenizer(raw, roles)


def bart() -> Recipe:
    return recipes.get("bart-tiny")


def explained(words: Tokenizer, **settings: object) -> Explanation:
    """<s> w10 w11 w12 w13 w14 w15 </s>, of which w11 w12 became a mask, w14 vanished and a mask came after w15."""
    before = framed([10, 11, 12, 13, 14, 15])
    inputs = np.array([2, 10, 4, 13, 15, 4, 3])
    answer = before.inputs
    after = Example(
        inputs, np.isin(inputs, [2, 3]), decoder_inputs=np.append(3, answer[:-1]), targets=answer, **settings
    )
    trace = Trace(np.array([0, 1, NOWHERE, 4, 6, NOWHERE, 7]), np.arange(8))
    return explain(bart(), [before], [after], words, traces=[trace])


def test_both_sides_are_explained_exactly(words: Tokenizer) -> None:
    shown = explained(words)
    read, written = shown.tokens[:7], shown.tokens[7:]
    assert [(side.name, side.begin, side.end) for side in shown.sides] == [("reads", 0, 7), ("writes", 7, 15)]
    assert [token.piece for token in read] == ["<s>", "w10", "<mask>", "w13", "w15", "<mask>", "</s>"]
    assert [token.original for token in read] == [("<s>",), ("w10",), ("w11", "w12"), ("w13",), ("w15",), (), ("</s>",)]
    assert [token.dropped for token in read] == [(), (), (), (), ("w14",), (), ()]
    masked = [place for place, token in enumerate(read) if token.fate is Fate.MASKED]
    assert masked == [2, 5] and not any(token.moved or token.target for token in read)
    assert [token.piece for token in written] == ["</s>", "<s>", "w10", "w11", "w12", "w13", "w14", "w15"]
    assert [token.target for token in written] == ["<s>", "w10", "w11", "w12", "w13", "w14", "w15", "</s>"]
    assert [token.target for token in written if token.left_out] == ["w11", "w12", "w14"]
    assert shown.count(Fate.UNTOUCHED) == 5 and shown.num_targets == 8
    whole = np.block([[np.ones((7, 7)), np.zeros((7, 8))], [np.ones((8, 7)), np.tri(8)]]).astype(bool)
    assert (shown.visible == whole).all()
    assert shown.sentences == (
        "The encoder reads 7 tokens and the decoder writes 8, one after another: each from what is read and from the right "
        "tokens before it, which stand in the row above what it writes.",
        "3 tokens of the text are left out: 2 behind 1 mask, 1 without a trace. 1 token stands for nothing. Of what is "
        "written, 3 of 8 tokens (bold) cannot be read anywhere.",
        "What is read sees its whole document. What is written sees all that is read, and of what is written itself and what "
        "precedes it.",
    )


def test_places_that_the_decoder_may_not_look_at_are_marked_and_left_out_of_the_picture(words: Tokenizer) -> None:
    shown = explained(words, unseen=np.array([False, False, True, False, False, True, False]))
    assert [token.unseen for token in shown.tokens] == [False, False, True, False, False, True, False] + [False] * 8
    assert not shown.visible[7:, [2, 5]].any() and shown.visible[:7, :7].all()
    assert "all that is read but the 2 hidden places" in shown.sentences[-1]
    read, _ = (block.plain for block in rows(shown, 200) if "reads " in block.plain)
    assert next(line.split() for line in read.split("\n") if line.startswith("hidden")) == ["hidden", "×", "×"]


def test_the_terminal_stacks_what_is_read_over_what_is_written(words: Tokenizer) -> None:
    blocks = [block.plain for block in rows(explained(words), 200)]
    assert blocks[0] == "what is read" and blocks[2] == "what is written"
    assert [line.rstrip() for line in blocks[1].split("\n")] == [
        "stood     <s> w10 w11 w12 w13 (w14) w15 ∅      </s>",
        "reads     <s> w10 <mask>  w13 w15       <mask> </s>",
        "fate              mask                  mask",
        "position  0   1   2       3   4         5      6",
    ]
    assert [line.rstrip() for line in blocks[3].split("\n")] == [
        "reads     </s> <s> w10 w11 w12 w13 w14 w15",
        "writes    <s>  w10 w11 w12 w13 w14 w15 </s>",
        "position  0    1   2   3   4   5   6   7",
    ]


def test_lines_part_the_sides_in_the_picture(words: Tokenizer) -> None:
    shown = explained(words)
    console = Console(width=90, record=True, file=io.StringIO())
    console.print(picture(shown, 80))
    lines = console.export_text().split("\n")
    assert any("┼" in line for line in lines)
    assert 'd="M0 7H15M7 0V15"' in page(shown)


def test_the_page_has_a_ribbon_for_either_side(words: Tokenizer) -> None:
    text = page(explained(words))
    assert text.count('<ol class="ribbon') == 2
    assert "<h3>what is read</h3>" in text and "<h3>what is written</h3>" in text
    first, second = text.split("<h3>what is written</h3>")
    assert first.count('<li class="token') == 7 and second.count('<li class="token') == 8
    assert second.count("target asked gone") == 3


@pytest.fixture(scope="module")
def t5_words() -> Tokenizer:
    return small_tokenizer(recipes.get("t5-tiny").tokenizer, [TEXT])


def test_in_one_row_the_text_is_read_first_and_then_written_on(t5_words: Tokenizer) -> None:
    backbone = dataclasses.replace(recipes.get("gpt2-tiny").backbone, visibility="prefix")
    recipe = dataclasses.replace(recipes.get("t5-tiny"), backbone=backbone)
    shown = explain_texts(recipe, [TEXT], t5_words)
    assert [side.name for side in shown.sides] == [""]
    num_read = sum(token.prefix for token in shown.tokens)
    assert all(token.prefix for token in shown.tokens[:num_read])
    assert [token.target is not None for token in shown.tokens] == [False] * (num_read - 1) + [True] * (
        len(shown.tokens) - num_read + 1
    )
    assert shown.visible[:num_read, :num_read].all() and not shown.visible[:num_read, num_read:].any()
    assert (shown.visible[num_read:] == np.tri(len(shown.tokens), dtype=bool)[num_read:]).all()
    assert shown.sentences[-1].startswith("Each place sees all that is read first")
    part = next(line for line in rows(shown, 4000)[0].plain.split("\n") if line.startswith("part"))
    assert "read━" in part and "written━" in part
    left_out = [token.target for token in shown.tokens if token.left_out]
    assert left_out and not any(target.startswith("<extra_id") for target in left_out)


def test_pairs_are_shown_side_by_side_and_packed_ones_do_not_see_each_other() -> None:
    recipe = dataclasses.replace(recipes.get("marian-tiny"), tokenizer=Unigram(500, layout="marian"))
    shown = explain_texts(recipe, [TEXT, OTHER, OTHER, TEXT], index=0, num_examples=2, languages=("en", "de"))
    assert shown.num_examples == shown.num_documents == 2
    documents = np.array([token.document for token in shown.tokens])
    assert not shown.visible[documents[:, None] != documents].any()
    assert not any(token.left_out or token.fate is not Fate.UNTOUCHED for token in shown.tokens)
    assert shown.sentences[-1].endswith("The 2 documents do not see each other.")
    starts = [token for token in shown.tokens if token.side == "writes" and token.position == 0]
    assert [token.piece for token in starts] == ["<pad>", "<pad>"]


def test_what_a_model_would_say_stands_beside_what_it_should(t5_words: Tokenizer) -> None:
    recipe = recipes.get("t5-tiny")
    torch.manual_seed(0)
    model = LanguageModel(recipe.backbone, recipe.objectives, t5_words.vocabulary.size)
    shown = explain_texts(recipe, [TEXT], t5_words, model=model)
    asked = [token for token in shown.tokens if token.target is not None]
    assert asked and all((token.predicted is None) == (token.target is None) for token in shown.tokens)
    right = sum(token.predicted == token.target for token in asked)
    assert f"The model's first guess is right at {right} of {len(asked)} places" in " ".join(shown.sentences)
    written = [block.plain for block in rows(shown, 4000)][3]
    assert any(line.startswith("predicts") for line in written.split("\n"))
    assert page(shown).count('<span class="predicted') == len(asked)
