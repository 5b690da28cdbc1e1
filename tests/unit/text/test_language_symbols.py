"""Which symbol stands for a language."""

import pytest

from elision.errors import InputError
from elision.text.language_symbols import language_symbols
from elision.text.tokenizer import Unigram

SYMBOLS = {"<s>": 0, "</s>": 2, "en_XX": 4, "[ko]": 5, "<de>": 6, "fr": 7, "zh_CN": 8, "zh_TW": 9, "fr_XX": 10}


@pytest.mark.parametrize(
    ("language", "symbol"), [("en", 4), ("en_XX", 4), ("ko", 5), ("de", 6), ("fr", 7), ("zh_TW", 9), ("fr_XX", 10)]
)
def test_a_language_is_written_as_itself_in_brackets_or_with_a_region(language, symbol):
    assert language_symbols(SYMBOLS, [language]) == {language: symbol}


def test_all_languages_without_a_symbol_are_named_with_the_way_out():
    with pytest.raises(InputError, match=r"languages sw, ha.*extra_special_tokens.*sw_XX"):
        language_symbols(SYMBOLS, ["sw", "en", "ha"])
    with pytest.raises(InputError, match="language e:"):
        # No prefix but a code with its region.
        language_symbols(SYMBOLS, ["e"])


def test_a_language_with_several_regions_must_say_which():
    with pytest.raises(InputError, match="zh could be any of the symbols zh_CN, zh_TW"):
        language_symbols(SYMBOLS, ["zh"])


def test_a_trained_tokenizer_tells_its_vocabulary_its_special_symbols():
    tokenizer = Unigram(120, layout="xlm-r", extra_special_tokens=("en_XX", "ne_NP")).train(
        ["the cat sat on it. " * 20]
    )
    symbols = tokenizer.vocabulary.symbols
    assert symbols["<s>"] == 0 and symbols["<mask>"] == tokenizer.vocabulary.size - 1
    assert language_symbols(symbols, ["ne", "en"]) == {"ne": symbols["ne_NP"], "en": symbols["en_XX"]}
