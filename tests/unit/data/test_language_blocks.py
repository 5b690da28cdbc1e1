"""mBART's blocks: literal, one language each, and what is refused; with its noise, the promises of the two together."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from elision.data.answers import written
from elision.data.mixing import LanguageMix
from elision.data.noise import Denoising
from elision.data.order import generator
from elision.data.segment import LanguageBlocks
from elision.data.shards import Documents, StoreWriter
from elision.data.store import Split
from elision.errors import InputError
from elision.text.vocabulary import Vocabulary
from tests import tiny

NE, EN = 7, 8
VOCABULARY = dataclasses.replace(
    tiny.vocabulary(1000), cls=0, sep=2, pad=1, symbols={"<s>": 0, "</s>": 2, "ne_NP": NE, "[en]": EN}
)


def split_of(path: Path, documents: list[tuple[str | None, list[list[int]]]]) -> Split:
    """A store of documents, each a language and sentences of ids."""
    tokenizer = tiny.tokenizer(tiny.WORDPIECE)
    tokenizer.save(path / "tokenizer")
    writer = StoreWriter(path, tokenizer, 0.0, 1 << 12)
    for number, (language, sentences) in enumerate(documents):
        ids = np.array([token for sentence in sentences for token in sentence])
        writer.append(
            Documents(
                ids=ids,
                num_tokens=np.array([len(ids)]),
                sentence_lengths=np.array([len(sentence) for sentence in sentences], np.uint32),
                num_sentences=np.array([len(sentences)]),
                num_bytes=np.array([len(ids)]),
                hashes=np.array([number], np.uint64),
                languages=[language],
                identifiers=[str(number)],
            )
        )
    return writer.finish({}).split("train")


DOCUMENTS = [
    ("ne", [[10, 11], [12]]),
    ("en", [[20, 21, 22], [23], [24, 25]]),
    ("ne", [[13, 14, 15]]),
]


def examples(plan) -> list[list[int]]:
    return [plan.example(index).inputs.tolist() for index in range(len(plan))]


def test_every_sentence_has_its_end_and_the_language_stands_behind_the_last(tmp_path: Path) -> None:
    plan = LanguageBlocks(max_length=32).plan(split_of(tmp_path, DOCUMENTS), VOCABULARY, 0)
    assert sorted(examples(plan)) == [
        [0, 10, 11, 2, 12, 2, NE],
        [0, 13, 14, 15, 2, NE],
        [0, 20, 21, 22, 2, 23, 2, 24, 25, 2, EN],
    ]
    example = plan.example(1)
    assert example.special.tolist() == [token in (0, 2, NE, EN) for token in example.inputs]


@pytest.mark.parametrize("max_length", [4, 6, 7, 10])
def test_no_example_is_longer_than_allowed_and_no_token_is_lost(tmp_path: Path, max_length: int) -> None:
    plan = LanguageBlocks(max_length=max_length).plan(split_of(tmp_path, DOCUMENTS), VOCABULARY, 0)
    made = examples(plan)
    assert max(map(len, made)) <= max_length
    assert sorted(token for one in made for token in one if token >= 10) == sorted(
        token for _, sentences in DOCUMENTS for sentence in sentences for token in sentence
    )


def test_mixing_reads_the_rarer_language_more_often_and_its_shares_sum_to_one(tmp_path: Path) -> None:
    split = split_of(tmp_path, [*DOCUMENTS, *[("en", [[30 + i]]) for i in range(7)]])
    mixed = LanguageMix(alpha=0.7).plan(LanguageBlocks(max_length=32), split, VOCABULARY, 0)
    shares = dict(zip(mixed.languages, mixed.shares))
    assert abs(sum(shares.values()) - 1) < 1e-12
    assert shares["ne"] > 2 / 10 and abs(shares["ne"] / shares["en"] - (2 / 8) ** 0.7) < 1e-9
    assert {one[-1] for one in examples(mixed)} == {NE, EN}
    even = LanguageMix(alpha=1.0).plan(LanguageBlocks(max_length=32), split, VOCABULARY, 0)
    assert abs(dict(zip(even.languages, even.shares))["ne"] - 0.2) < 1e-12


def test_documents_without_a_language_and_languages_without_a_symbol_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="1 of 2 documents in split 'train' declare no language"):
        LanguageBlocks().plan(split_of(tmp_path / "a", [("ne", [[10]]), (None, [[11]])]), VOCABULARY, 0)
    with pytest.raises(InputError, match="no symbol for the language sw"):
        LanguageBlocks().plan(split_of(tmp_path / "b", [("ne", [[10]]), ("sw", [[11]])]), VOCABULARY, 0)
    with pytest.raises(InputError, match="max_length is 3"):
        LanguageBlocks(max_length=3)


def test_the_last_token_of_the_answer_is_what_the_decoder_reads_first_and_sentences_move_with_their_ends(
    tmp_path: Path,
) -> None:
    plan = LanguageBlocks(max_length=32).plan(split_of(tmp_path, DOCUMENTS), VOCABULARY, 0)
    noise = Denoising(permute_sentences=1.0, infill=0.0, random_share=0.0, sentence_end="separator")
    seen = set()
    for draw in range(40):
        example = written(noise(plan.example(1), VOCABULARY, generator(1, "noise", draw)), None)
        assert example.targets.tolist() == [0, 10, 11, 2, 12, 2, NE]
        assert example.decoder_inputs.tolist() == [NE, 0, 10, 11, 2, 12, 2]
        seen.add(tuple(example.inputs.tolist()))
    assert seen == {(0, 10, 11, 2, 12, 2, NE), (0, 12, 2, 10, 11, 2, NE)}


def test_words_and_ends_of_sentences_are_left_out_alike_but_never_the_language(tmp_path: Path) -> None:
    plan = LanguageBlocks(max_length=32).plan(split_of(tmp_path, DOCUMENTS), VOCABULARY, 0)
    noise = Denoising(infill=0.35, mean_words=3.5, sentence_end="separator")
    vocabulary: Vocabulary = dataclasses.replace(VOCABULARY, mask=4)
    ends = [noise(plan.example(0), vocabulary, generator(1, "noise", draw)).inputs for draw in range(200)]
    assert {inputs[0] for inputs in ends} == {0} and {inputs[-1] for inputs in ends} == {EN}
    assert {int((inputs == 2).sum()) for inputs in ends} >= {1, 2, 3}
