"""Filling blanks with models that write, with writers whose texts are known."""

import math

import pytest
import torch

from elision.errors import InputError
from elision.generation.decoding import Decoding
from elision.generation.texts import Generated
from elision.loaded import Loaded
from elision.model.language_model import LanguageModel
from elision.tasks.fill import Candidate, Filled, fill
from elision.text.tokenizer import ByteLevelBPE, Tokenizer, Unigram
from tests import tiny


class Writer(Loaded):
    """A model that writes, from a source, what it was given: texts with their log-likelihoods."""

    def __init__(self, name: str, tokenizer: Tokenizer, written: list[tuple[str, float]]):
        recipe = tiny.recipe(name)
        model = LanguageModel(recipe.backbone, recipe.objectives, tokenizer.vocabulary.size)
        super().__init__("a-model", model, recipe, tokenizer, None, [])
        self.written = written
        self.asked: list[tuple[list[str], Decoding]] = []

    def generate_batch(self, prompts: list[str], decoding: Decoding) -> list[list[Generated]]:
        """Return what is known."""
        self.asked.append((prompts, decoding))
        return [
            [
                Generated(text, tuple(self.tokenizer.encode(text)), likelihood, "end")
                for text, likelihood in self.written
            ]
        ]


@pytest.fixture(scope="module")
def sentinels() -> Tokenizer:
    return tiny.tokenizer(Unigram(300, layout="t5", num_sentinels=20))


@pytest.fixture(scope="module")
def masks() -> Tokenizer:
    return tiny.tokenizer(ByteLevelBPE(300, layout="roberta"))


def test_t5_writes_each_blank_behind_its_sentinel_and_equal_texts_weigh_together(sentinels: Tokenizer) -> None:
    model = Writer(
        "t5-tiny",
        sentinels,
        [
            ("<extra_id_0> ba do <extra_id_1> ki", math.log(0.4)),
            ("<extra_id_0> lu <extra_id_1> ki", math.log(0.3)),
            ("<extra_id_0> lu <extra_id_1> me", math.log(0.1)),
            ("ba", math.log(0.2)),
        ],
    )
    filled = fill(model, "no {mask} ra <mask> su", 2)
    assert filled.text == "no ba do ra ki su"
    assert [[candidate.token for candidate in blank] for blank in filled.blanks] == [["ba do", "lu"], ["ki", "me"]]
    assert [round(c.probability, 6) for blank in filled.blanks for c in blank] == [0.5, 0.5, 0.875, 0.125]
    ((prompts, decoding),) = model.asked
    assert prompts == ["no <extra_id_0> ra <extra_id_1> su"] and decoding.num_beams == decoding.num_texts == 4


def test_bart_writes_the_text_anew_and_what_stands_between_the_given_parts_fills_the_blanks(masks: Tokenizer) -> None:
    texts = [("ba  lu me do", math.log(0.5)), ("ba ki do", math.log(0.25)), ("all else", math.log(0.25))]
    model = Writer("bart-tiny", masks, texts)
    filled = fill(model, "ba ___ do")
    shares = ((Candidate("lu me", None, pytest.approx(2 / 3)), Candidate("ki", None, pytest.approx(1 / 3))),)
    assert filled == Filled("ba lu me do", shares)
    assert model.asked[0][0] == ["ba <mask> do"]


def test_where_bart_has_changed_what_was_given_there_is_only_its_text(masks: Tokenizer) -> None:
    assert fill(Writer("bart-tiny", masks, [("all else", -1.0)]), "ba ___ do") == Filled("all else", ())


def test_a_model_at_work_gives_at_most_so_many_texts(sentinels: Tokenizer) -> None:
    recipe = tiny.recipe("t5-tiny")
    torch.manual_seed(0)
    model = LanguageModel(recipe.backbone, recipe.objectives, sentinels.vocabulary.size).eval()
    filled = fill(Loaded("a-model", model, recipe, sentinels, None, []), "ba <mask> do", 2)
    assert all(len(blank) <= 2 for blank in filled.blanks) and isinstance(filled.text, str)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("marian-tiny", "it was trained with GivenAnswer, which leaves no spans out .* Use `elision generate`"),
        ("mass-tiny", "it was trained with Fragment"),
        ("mbart-tiny", "it was trained with Denoising"),
    ],
)
def test_models_that_restore_no_spans_are_refused_with_what_to_use(name: str, message: str, masks: Tokenizer) -> None:
    with pytest.raises(InputError, match=message):
        fill(Writer(name, masks, []), "ba <mask> do")


def test_texts_without_a_blank_or_with_too_many_are_refused(sentinels: Tokenizer) -> None:
    model = Writer("t5-tiny", sentinels, [])
    with pytest.raises(InputError, match="has no blank"):
        fill(model, "ba do")
    with pytest.raises(InputError, match="has 21 blanks, but the tokenizer only 20 sentinels"):
        fill(model, " ".join(["ba ___"] * 21))
    with pytest.raises(InputError, match="top_k is 0"):
        fill(model, "ba ___", 0)


def test_a_fine_tuned_model_writes_something_else(sentinels: Tokenizer) -> None:
    model = Writer("t5-tiny", sentinels, [])
    model.task = object()
    with pytest.raises(InputError, match="cannot fill blanks"):
        fill(model, "ba ___")
