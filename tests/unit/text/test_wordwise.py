import json
import random

import pytest
import tokenizers

from elision.text import wordwise
from elision.text.sentences import split_sentences
from elision.text.tokenizer import ByteLevelBPE, Tokenizer, Unigram, WordPiece
from elision.text.wordwise import TextEncoder, WordEncoder, encoder

TEXTS = [
    "The quick brown fox's tail; it isn't (really) foo_bar.baz(x=3.5)! They'll see 'em.",
    "안녕하세요. 오늘은 날씨가 좋습니다.",
    "हिन्दी वाक्य है। Café naïve déjà-vu ΟΔΥΣΣΕΥΣ ﬁne ½ ² Å İ ǆ",
    "今天天气很好。 これはペンです。",
] * 4
# Everything that a rule about words could trip over: all kinds of white space, marks without a letter before them,
# characters that clean-up removes, compatibility characters that become spaces, halves of compositions.
NASTY = (
    list(
        " \n\t\r\x0b\x0c\x1c\x1d\x1e\x1f\x85\xa0\u1680\u2003\u200b\u200d\u2028\u2029\u202f\u3000\ufeff\ufffd\x00\x7f\xad"
    )
    + list("abIZſßİΣςǅéñ012½²٣'’.,-_/()[]{}<>=≠¨´\u0301\u0338\u0345\u0327\u093c\u3099")
    + list("가각ᄀ\u1161\u11a8か゛が今क्षिกำ🙂👨‍👩‍👧ﬁ")
    + [
        "'s",
        "'ll",
        " '",
        "n't",
        "[SEP]",
        "</s>",
        "<|endoftext|>",
        "  ",
        "   ",
        " \n ",
        "\n\n",
        "word",
        " word",
        "12",
        "x" * 120,
    ]
)
SPECS = {
    "wordpiece": WordPiece(700),
    "wordpiece cased": WordPiece(700, lowercase=False),
    "wordpiece bert": WordPiece(700, accents="bert"),
    "bpe": ByteLevelBPE(500),
    "roberta": ByteLevelBPE(500, layout="roberta"),
    "unigram": Unigram(400),
    "unigram nfkc": Unigram(400, normal_form="nfkc"),
    "albert": Unigram(400, layout="albert", lowercase=True),
}


@pytest.fixture(scope="module", params=SPECS)
def tokenizer(request):
    return SPECS[request.param].train(TEXTS)


def texts_of(seed, num_texts):
    rng = random.Random(seed)
    return ["".join(rng.choices(NASTY, k=rng.randint(0, 30))) for _ in range(num_texts)]


def test_word_by_word_gives_the_ids_of_whole_texts(tokenizer):
    by_word, whole = encoder(tokenizer), TextEncoder(tokenizer)
    assert isinstance(by_word, WordEncoder)
    # The second round is answered from the table.
    for seed in (0, 1, 0):
        texts = [*texts_of(seed, 3000), *TEXTS, ""]
        ids, lengths = by_word.encode(texts)
        expected_ids, expected_lengths = whole.encode(texts)
        ends, expected_ends = lengths.cumsum(), expected_lengths.cumsum()
        for i, text in enumerate(texts):
            mine = ids[ends[i] - lengths[i] : ends[i]].tolist()
            theirs = expected_ids[expected_ends[i] - expected_lengths[i] : expected_ends[i]].tolist()
            assert mine == theirs, ascii(text)


def test_a_full_table_starts_anew_and_changes_nothing(tokenizer, monkeypatch):
    by_word, whole = encoder(tokenizer), TextEncoder(tokenizer)
    monkeypatch.setattr(wordwise, "MAX_WORDS", 20)
    for seed in range(3):
        texts = texts_of(seed, 50)
        ids, lengths = by_word.encode(texts)
        expected_ids, expected_lengths = whole.encode(texts)
        assert ids.tolist() == expected_ids.tolist()
        assert lengths.tolist() == expected_lengths.tolist()


def test_no_text_at_all_is_no_ids(tokenizer):
    ids, lengths = encoder(tokenizer).encode([])
    assert (len(ids), len(lengths)) == (0, 0)


def test_sentences_by_words_are_the_ids_of_encode_batch():
    tokenizer = SPECS["bpe"].train(TEXTS)
    pieces = [piece for text in TEXTS for piece in split_sentences(text)]
    ids, _ = encoder(tokenizer).encode(pieces)
    assert ids.tolist() == [i for row in tokenizer.encode_batch(pieces) for i in row.tolist()]


@pytest.mark.parametrize(
    "change",
    [
        {"pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True}},
        {"pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}},
        {"normalizer": {"type": "Replace", "pattern": {"String": " b"}, "content": "c"}},
        {"pre_tokenizer": None},
    ],
)
def test_tokenizers_that_look_across_words_encode_whole_texts(change):
    trained = SPECS["bpe"].train(TEXTS)
    description = json.loads(trained.raw.to_str()) | change
    changed = Tokenizer(tokenizers.Tokenizer.from_str(json.dumps(description)), trained.roles)
    assert isinstance(encoder(changed), TextEncoder)


def test_a_vocabulary_with_phrases_is_not_cut_into_words():
    tokenizer = SPECS["bpe"].train(TEXTS)
    tokenizer.raw.add_tokens(["quick brown"])
    assert isinstance(encoder(tokenizer), TextEncoder)
