"""Which symbols are full stops, and which are of scripts without spaces, in every way that vocabularies write them."""

import pytest

from elision.text.scripts import is_full_stop, is_spaceless
from elision.text.tokenizer import ByteLevelBPE, Unigram, WordPiece

TEXTS = ["The cat sat. It slept ... and so on, e.g. there. 彼は寝た。 वह सो गया। " * 3] * 4


@pytest.mark.parametrize("stop", [".", "。", "।", "۔", "։", "።", "។"])
def test_full_stops_of_scripts_are_full_stops(stop):
    assert is_full_stop(stop) and not is_full_stop(stop * 2)


@pytest.mark.parametrize("text", ["?", "!", "", "a.", "...", "…"])
def test_other_marks_are_not(text):
    assert not is_full_stop(text)


def test_thai_kana_and_chinese_put_no_spaces_hangul_hindi_and_latin_do():
    assert is_spaceless("ไทย") and is_spaceless("かな") and is_spaceless("猫") and is_spaceless("ខ្មែរ")
    assert not any(map(is_spaceless, ["cat", "고양이", "बिल्ली", "кот", ".", ""]))


@pytest.mark.parametrize(
    "spec",
    [
        WordPiece(vocab_size=300),
        ByteLevelBPE(vocab_size=400, layout="roberta"),
        Unigram(vocab_size=120, layout="xlm-r"),
    ],
    ids=["wordpiece", "bytes", "unigram"],
)
def test_a_vocabulary_marks_its_full_stops_whether_a_space_leads_them_or_not(spec):
    tokenizer = spec.train(TEXTS)
    vocabulary = tokenizer.vocabulary
    assert vocabulary.full_stop.any() and not (vocabulary.full_stop & vocabulary.special).any()
    for text in ("sat.", "sat ."):
        assert vocabulary.full_stop[tokenizer.encode(text)[-1]], text
    assert not vocabulary.full_stop[tokenizer.encode("cat")].any()
