"""CTRL's windows: literal, and against each code's stream laid out in memory."""

from pathlib import Path

import numpy as np
import pytest

from elision.data.mixing import LanguageMix
from elision.data.noise import NextToken, TokenMask
from elision.data.segment import CodedChunks
from elision.data.store import Split
from elision.errors import InputError
from elision.text.codes import code_id, code_symbol
from elision.text.prepare import prepare_texts
from elision.text.tokenizer import ByteLevelBPE
from tests import tiny

UNKNOWN, SEPARATOR = 1, 5
TOKENIZER = tiny.tokenizer(tiny.WORDPIECE)
A, B = (TOKENIZER.encode(letter)[0] for letter in "ab")


def split_of(path: Path, documents: list[list[int]], codes: list[str | None], **settings: object) -> Split:
    stored = tiny.id_store(path, TOKENIZER, [[ids] for ids in documents], shard_tokens=7, codes=codes, **settings)
    return stored.split("train")


def windows(split: Split, lookahead: int = 1, **settings: object) -> list[list[int]]:
    plan = CodedChunks(**settings).plan(split, TOKENIZER_WITH_END, seed=1, lookahead=lookahead)
    return [plan.example(index).inputs.tolist() for index in range(len(plan))]


TOKENIZER_WITH_END = tiny.vocabulary(300)


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> Split:
    path = tmp_path_factory.mktemp("two") / "store"
    return split_of(path, [[10, 11, 12], [13, 14], [15, 16, 17]], ["a", "b", "a"])


def test_windows_literally(two: Split) -> None:
    assert windows(two, max_length=2) == [[A, 5, 10], [A, 11, 12], [A, 5, 15], [A, 16, 17], [B, 5, 13]]
    assert windows(two, max_length=3) == [[A, 5, 10, 11], [A, 12, 5, 15], [B, 5, 13, 14]]
    assert windows(two, max_length=2, separated=False) == [[A, 10, 11], [A, 12, 15], [A, 16, 17], [B, 13, 14]]


def test_the_first_token_is_predicted_from_the_code_alone(two: Split) -> None:
    plan = CodedChunks(max_length=3).plan(two, TOKENIZER_WITH_END, seed=1, lookahead=1)
    example = NextToken()(plan.example(1), TOKENIZER_WITH_END, np.random.default_rng(0))
    assert example.inputs.tolist() == [A, 12, 5]
    assert example.targets.tolist() == [12, 5, 15]
    assert example.special.tolist() == [True, False, False]
    assert example.summary == 2


def test_every_token_is_predicted_once(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    codes = rng.choice(["a", "b", "d"], 50).tolist()
    documents = [rng.integers(6, 300, rng.choice([1, 2, 5, 40])).tolist() for _ in codes]
    split = split_of(tmp_path / "store", documents, codes)
    for length in (2, 5, 16):
        found = windows(split, max_length=length)
        expected = []
        for code in "abd":
            stream = [t for ids, c in zip(documents, codes, strict=True) if c == code for t in (SEPARATOR, *ids)]
            (name,) = TOKENIZER.encode(code)
            cuts = range(0, len(stream) // length * length, length)
            expected += [[name, *stream[start : start + length]] for start in cuts]
        assert found == expected


def test_without_a_next_token_a_window_is_the_code_and_what_follows(two: Split) -> None:
    assert windows(two, lookahead=0, max_length=3) == [[A, 5, 10], [A, 11, 12], [A, 5, 15], [A, 16, 17], [B, 5, 13]]
    plan = CodedChunks(max_length=3).plan(two, TOKENIZER_WITH_END, seed=1)
    masked = TokenMask(rate=0.9)(plan.example(0), TOKENIZER_WITH_END, np.random.default_rng(0))
    assert masked.inputs[0] == A, "a code is no text to be masked"


@pytest.mark.parametrize("separated", [True, False])
def test_windows_with_more_than_one_unknown_symbol_are_left_out(tmp_path: Path, separated: bool) -> None:
    rng = np.random.default_rng(1)
    codes = ["a" if number % 3 else "b" for number in range(60)]
    documents = [
        np.where(rng.random(n := int(rng.integers(1, 20))) < 0.15, 1, 9 + rng.integers(0, 9, n)) for _ in codes
    ]
    split = split_of(tmp_path / "store", [ids.tolist() for ids in documents], codes)
    every = windows(split, max_length=6, max_unknown=300, separated=separated)
    few = [window for window in every if window.count(UNKNOWN) <= 1]
    assert windows(split, max_length=6, separated=separated) == few
    assert windows(split, max_length=6, max_unknown=0, separated=separated) == [w for w in every if UNKNOWN not in w]
    assert 0.3 * len(every) < len(few) < len(every)


def test_unknown_symbols_everywhere_are_said(tmp_path: Path) -> None:
    split = split_of(tmp_path / "store", [[1, 1, 1, 1]], ["a"])
    with pytest.raises(InputError, match=r"every window of split 'train' .* more than 1 unknown"):
        windows(split, max_length=4)


def test_documents_without_a_code_are_counted(tmp_path: Path) -> None:
    split = split_of(tmp_path / "store", [[10], [11], [12]], ["a", None, None])
    with pytest.raises(InputError, match=r"2 documents .* declare no code: prepare it with --reading.code-field"):
        windows(split)


def test_languages_can_be_mixed_under_codes(tmp_path: Path) -> None:
    documents = [[number] * 6 for number in range(10, 22)]
    codes = ["a", "b"] * 6
    languages = ["aa" if number < 8 else "bb" for number in range(12)]
    split = split_of(tmp_path / "store", documents, codes, languages=languages)
    plan = LanguageMix(0.5).plan(CodedChunks(max_length=7), split, TOKENIZER_WITH_END, seed=1, lookahead=1)
    found = [plan.example(index).inputs.tolist() for index in range(len(plan))]
    assert sorted(found) == sorted(
        [A if code == "a" else B, SEPARATOR, *ids] for code, ids in zip(codes, documents, strict=True)
    )


def test_a_code_is_its_own_symbol_or_an_ordinary_one_or_refused(tmp_path: Path) -> None:
    texts = ["one book is here", "other news are here"] * 3
    store = prepare_texts(texts, tmp_path / "store", ByteLevelBPE(300), codes=["Books", "World News"] * 3)
    tokenizer = store.tokenizer
    assert code_id(tokenizer, "World News") == tokenizer.encode(code_symbol("World News"))[0] == 2
    assert code_id(tokenizer, "B") == tokenizer.encode("B")[0]
    with pytest.raises(InputError, match=r"'Poems' of the corpus has no token of its own: .* no symbol <\|Poems\|>"):
        code_id(tokenizer, "Poems")
    with pytest.raises(InputError, match="'\u2603'"):
        code_id(TOKENIZER, "\u2603")


def test_settings_out_of_range_are_named() -> None:
    with pytest.raises(InputError, match="max_length is 1"):
        CodedChunks(max_length=1)
    with pytest.raises(InputError, match="max_unknown is -1"):
        CodedChunks(max_unknown=-1)
