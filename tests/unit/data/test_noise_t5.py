"""T5's noise: the released code's arithmetic, literal examples, and where tokens are left out how often."""

import dataclasses

import numpy as np
import pytest

from elision.data.example import Example
from elision.data.noise import SpanCorruption
from elision.data.noise.span_corruption import (
    chunk_length,
    num_left_out,
    pick_random_spans,
    split_at_random,
    with_sentinels,
)
from elision.data.order import generator
from elision.errors import InputError
from elision.text.tokenizer import Unigram
from elision.text.vocabulary import Vocabulary
from tests import tiny

# As T5: the sentinels are the last ids and are used downwards; 5 is the end.
SENTINELS = np.arange(999, 899, -1)
SPECIAL = (np.arange(1000) < 6) | (np.arange(1000) >= 900)
VOCABULARY = dataclasses.replace(tiny.vocabulary(1000), special=SPECIAL, sentinels=SENTINELS)


def text(length: int) -> Example:
    """Tokens 10, 11, 12 ... as far as there are ordinary ones, then again."""
    return Example(10 + np.arange(length) % 890, np.zeros(length, bool))


def noised(length: int, index: int = 0, vocabulary: Vocabulary = VOCABULARY, **settings: object) -> Example:
    return SpanCorruption(**settings)(text(length), vocabulary, generator(1, "noise", index))


def restored(inputs: list[int], answer: list[int]) -> list[int]:
    """Put the spans of the answer where the sentinels of the inputs stand; a sentinel there stands for text that stayed."""
    assert inputs[-1] == answer[-1] == VOCABULARY.eos
    stayed: list[list[int]] = [[]]
    for token in inputs[:-1]:
        if token >= 900:
            stayed.append([])
        else:
            stayed[-1].append(token)
    left_out: list[list[int]] = []
    for token in answer[:-1]:
        if token >= 900:
            left_out.append([])
        else:
            left_out[-1].append(token)
    left_out += [[]] * (len(stayed) - len(left_out))
    return [token for kept, gone in zip(stayed, left_out, strict=True) for token in (*kept, *gone)]


def test_568_tokens_have_85_left_out_in_28_spans_and_become_exactly_512_and_114() -> None:
    assert num_left_out(568, 0.15, 3.0) == (85, 28)
    for index in range(20):
        after = noised(568, index)
        assert len(after.inputs) == 512 and len(after.answer) == 114
        assert (after.inputs >= 900).sum() == (after.answer >= 900).sum() == 28
        assert (after.answer < 900).sum() - 1 == 85


def test_the_length_of_raw_text_follows_from_that_of_the_inputs() -> None:
    assert chunk_length(512) == (568, 114)
    assert chunk_length(1024) == (1137, 229)
    assert chunk_length(128) == (141, 29)
    for inputs in (3, 4, 10, 64, 100):
        length, answer = chunk_length(inputs)
        assert SpanCorruption().lengths(length) == (inputs, answer)
        assert SpanCorruption().lengths(length + 1)[0] > inputs


def test_a_worked_example_with_its_mask_written_out() -> None:
    tokens = np.arange(10, 16)
    mask = np.array([False, False, True, True, False, True])
    assert with_sentinels(tokens, mask, np.array([99, 98])).tolist() == [10, 11, 99, 14, 98]
    assert with_sentinels(tokens, ~mask, np.array([99, 98])).tolist() == [99, 12, 13, 98, 15]
    assert with_sentinels(tokens, np.zeros(6, bool), np.array([99])).tolist() == tokens.tolist()


@pytest.mark.parametrize("settings", [{}, {"random_roll": True}, {"rate": 0.5, "mean_length": 10.0}, {"rate": 0.9}])
def test_inputs_and_answer_reconstruct_the_text(settings: dict[str, object]) -> None:
    for length in (1, 2, 3, 5, 20, 131):
        for index in range(20):
            after = noised(length, index, **settings)
            inputs, answer, whole = after.inputs.tolist(), after.answer.tolist(), text(length).inputs.tolist()
            if inputs[0] >= 900:
                # Turned round it may begin with a span: as if text stood before it.
                assert settings.get("random_roll")
                inputs, answer, whole = [10, *inputs], [999, *answer], [10, *whole]
            assert restored(inputs, answer) == whole


def test_the_first_token_always_stays_and_the_last_is_always_left_out() -> None:
    picked = np.mean([pick_random_spans(568, 0.15, 3.0, generator(1, "noise", index)) for index in range(3000)], axis=0)
    assert picked[0] == 0 and picked[-1] == 1
    # A span of one token at the end leaves the one before it: 27 of 84 cuts are next to it.
    assert abs(picked[-2] - (1 - 27 / 84)) < 0.03
    # And in the middle, where nothing forces a token to stay or go, a little less than 0.15.
    assert 0.14 < picked[50:500].mean() < 0.15


def test_turned_round_every_token_is_left_out_equally_often_and_15_percent_of_them() -> None:
    picked = np.array([pick_random_spans(40, 0.15, 3.0, generator(1, "noise", i), roll=True) for i in range(4000)])
    assert (picked.sum(1) == 6).all()
    assert abs(picked.mean(0) - 0.15).max() < 0.03


def test_every_cut_into_parts_is_equally_likely() -> None:
    counts: dict[tuple[int, ...], int] = {}
    for index in range(3000):
        sizes = tuple(split_at_random(5, 3, generator(1, "noise", index)).tolist())
        counts[sizes] = counts.get(sizes, 0) + 1
    # 5 = a + b + c with parts of at least 1: two of four slots.
    assert len(counts) == 6 and all(sum(sizes) == 5 and min(sizes) >= 1 for sizes in counts)
    assert max(abs(count / 3000 - 1 / 6) for count in counts.values()) < 0.03


def test_what_is_written_begins_with_a_sentinel_and_no_sentinel_closes_it() -> None:
    after = noised(100)
    sentinels = after.answer[after.answer >= 900]
    assert after.answer[0] == 999 and sentinels.tolist() == SENTINELS[: len(sentinels)].tolist()
    assert after.answer[-1] == 5 and after.answer[-2] < 900
    assert after.inputs[-1] == 5 and after.special.tolist() == SPECIAL[after.inputs].tolist()
    assert after.targets is None and after.summary == len(after.answer) - 1


@pytest.mark.parametrize("settings", [{}, {"random_roll": True}, {"rate": 0.97, "mean_length": 1.0}, {"rate": 0.0}])
def test_no_example_is_longer_than_the_noise_says_nor_uses_more_sentinels(settings: dict[str, object]) -> None:
    noise = SpanCorruption(**settings)
    for length in range(1, 90):
        bound, used = noise.lengths(length), noise.num_sentinels(length)
        for index in range(5):
            after = noised(length, index, **settings)
            assert len(after.inputs) <= bound[0] and len(after.answer) <= bound[1]
            assert max((after.inputs >= 900).sum(), (after.answer >= 900).sum()) <= used
        # Shorter examples never need more room: a row that holds the longest holds all.
        assert noise.lengths(length - 1) <= bound or length == 1


def test_more_spans_than_sentinels_are_refused_by_number() -> None:
    few = dataclasses.replace(VOCABULARY, sentinels=SENTINELS[:10])
    with pytest.raises(InputError, match="an example of 568 tokens needs 28 sentinels, but the tokenizer has 10"):
        noised(568, vocabulary=few)
    assert (noised(200, vocabulary=few).inputs >= 900).sum() == 10
    with pytest.raises(InputError, match=r"needs 1 sentinel, but the tokenizer has 0.*--recipe t5-tiny"):
        SpanCorruption().check(tiny.vocabulary(1000))


def test_documents_that_must_not_see_each_other_are_refused() -> None:
    apart = dataclasses.replace(text(10), doc_ids=np.repeat([1, 2], 5))
    with pytest.raises(InputError, match="cross_documents to True"):
        SpanCorruption()(apart, VOCABULARY, generator(1, "noise", 0))


def test_the_language_of_an_example_is_that_of_both_sides() -> None:
    example = dataclasses.replace(text(20), languages=np.full(20, 3))
    after = SpanCorruption()(example, VOCABULARY, generator(1, "noise", 0))
    assert after.languages.tolist() == [3] * len(after.inputs)
    assert after.decoder_languages.tolist() == [3] * len(after.answer)


def test_settings_that_make_no_sense_are_refused() -> None:
    for settings, message in [({"rate": 1.5}, "rate is 1.5"), ({"mean_length": 0.5}, "mean_length is 0.5")]:
        with pytest.raises(InputError, match=message):
            SpanCorruption(**settings)
    with pytest.raises(InputError, match="max_inputs is 2"):
        chunk_length(2)
    with pytest.raises(InputError, match=r"rate is 1\.0"):
        chunk_length(10, rate=1.0)


def test_the_tokenizer_numbers_sentinels_downwards_from_its_last_symbol_as_t5s() -> None:
    documents = [" ".join(sentences) for sentences in tiny.texts()]
    trained = Unigram(vocab_size=300, layout="t5", num_sentinels=20).train(documents)
    vocabulary, symbols = trained.vocabulary, trained.symbols()
    assert symbols[:3] == ["<pad>", "</s>", "<unk>"]
    assert symbols[-20:] == [f"<extra_id_{i}>" for i in range(19, -1, -1)]
    assert vocabulary.size <= 300
    assert vocabulary.sentinels.tolist() == list(range(vocabulary.size - 1, vocabulary.size - 21, -1))
    assert vocabulary.special[vocabulary.sentinels].all()
    # A user writes one, which takes the space before it along; a corpus that mentions one only spells it.
    assert trained.tokens(trained.encode("ba <extra_id_1> ba")).count("<extra_id_1>") == 1
    assert "▁" not in trained.tokens(trained.encode("ba <extra_id_1> ba"))
    assert not vocabulary.special[trained.encode_batch(["ba <extra_id_1> ba"])[0]].any()


def test_sentinels_are_found_by_name_in_whatever_order_a_tokenizer_numbers_them() -> None:
    documents = [" ".join(sentences) for sentences in tiny.texts()]
    names = ("<extra_id_0>", "<extra_id_2>", "<extra_id_1>")
    trained = Unigram(vocab_size=300, layout="xlnet", extra_special_tokens=names).train(documents)
    assert [trained.symbols()[i] for i in trained.vocabulary.sentinels] == sorted(names)
