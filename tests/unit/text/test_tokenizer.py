import json

import numpy as np
import pytest

from elision.errors import InputError
from elision.text.tokenizer import ByteLevelBPE, Tokenizer, Unigram, WordPiece, layouts

TEXTS = [
    "The quick brown fox jumps over the lazy dog. It's unbelievable!",
    "안녕하세요. 오늘은 날씨가 좋습니다. 한국어 문장입니다.",
    "नेपाली भाषामा लेखिएको हिन्दी वाक्य है।",
    "Café naïve Ünïcode déjà vu, résumé. Α Β γάμμα.",
    "今天天气很好。",
] * 4
SPECS = [
    WordPiece(500),
    WordPiece(500, lowercase=False),
    ByteLevelBPE(500),
    ByteLevelBPE(500, layout="roberta"),
    ByteLevelBPE(500, layout="xlm"),
    ByteLevelBPE(500, layout="blenderbot"),
    Unigram(300),
    Unigram(300, layout="albert", lowercase=True, normal_form="nfkc"),
    Unigram(320, layout="xlnet", num_sentinels=3),
    Unigram(300, layout="marian"),
]


@pytest.mark.parametrize("spec", SPECS)
def test_auto_tokenizer_gives_identical_ids(spec, tmp_path):
    from transformers import AutoTokenizer

    tokenizer = spec.train(TEXTS)
    tokenizer.save(tmp_path)
    for model_type in (None, "bert", "gpt2"):
        if model_type:
            (tmp_path / "config.json").write_text(json.dumps({"model_type": model_type}))
        theirs = AutoTokenizer.from_pretrained(tmp_path)
        for text in [*TEXTS[:5], "a [MASK] b <mask> c <|endoftext|> d"]:
            assert theirs(text)["input_ids"] == tokenizer.encode(text, add_special_tokens=True)
        assert theirs.mask_token_id == tokenizer.vocabulary.mask
        assert theirs.pad_token_id == tokenizer.vocabulary.pad


@pytest.mark.parametrize("spec", SPECS)
def test_saved_and_loaded_tokenizers_have_one_fingerprint(spec, tmp_path):
    tokenizer = spec.train(TEXTS)
    tokenizer.save(tmp_path / "tokenizer")
    for path in (tmp_path, tmp_path / "tokenizer", tmp_path / "tokenizer" / "tokenizer.json"):
        loaded = Tokenizer.load(path)
        assert loaded.fingerprint == tokenizer.fingerprint
        assert loaded.roles == tokenizer.roles


@pytest.mark.parametrize("spec", [WordPiece(300), ByteLevelBPE(400)])
def test_training_twice_gives_the_same_tokenizer(spec):
    assert spec.train(TEXTS).fingerprint == spec.train(reversed(TEXTS)).fingerprint


def test_lower_casing_keeps_hangul_and_devanagari_whole():
    normalize = WordPiece(500).train(TEXTS).raw.normalizer.normalize_str
    assert normalize("안녕하세요 HELLO") == "안녕하세요 hello"
    assert normalize("हिन्दी नेपाली") == "हिन्दी नेपाली"
    assert normalize("が й Ё") == "が й ё"
    assert normalize("Café Ünï γάμμα") == "cafe uni γαμμα"


def test_the_original_accent_rule_is_there_by_name():
    normalize = WordPiece(500, accents="bert").train(TEXTS).raw.normalizer.normalize_str
    assert normalize("हिन्दी") == "हिनदी"
    assert WordPiece(500, accents="keep").train(TEXTS).raw.normalizer.normalize_str("Café") == "café"


def test_unigram_keeps_lone_korean_letters_and_reads_every_space_as_one():
    tokenizer = Unigram(300).train(TEXTS + ["ㅋㅋ ㅋㅠ ㅠㅠ 재밌다"] * 4)
    assert tokenizer.decode(tokenizer.encode("ㅋㅋ ㅋㅠ ㅠㅠ")) == "ㅋㅋ ㅋㅠ ㅠㅠ"
    assert tokenizer.encode("재밌다\u3000ㅋㅋ\xa0\u2009ㅠㅠ") == tokenizer.encode("재밌다 ㅋㅋ ㅠㅠ")
    assert tokenizer.raw.normalizer.normalize_str("\u1100\u1161\u11a8") == "각"


def test_nfkc_unigram_normalises_as_sentencepiece_does():
    from sentencepiece import SentencePieceNormalizer

    theirs = SentencePieceNormalizer(rule_name="nmt_nfkc", remove_extra_whitespaces=True)
    ours = Unigram(300, normal_form="nfkc").train(TEXTS).raw.normalizer.normalize_str
    for text in [*TEXTS[:5], "ㅋㅋ ㅋㅠ", "ＡＢＣ\u3000½ ﬁne", "\u1100\u1161\u11a8 e\u0301", "a\x07b  \xa0c"]:
        assert ours(text) == theirs.normalize(text).lstrip("▁").replace("▁", " "), text
    assert ours("ㅋㅠ") == "큐"


def test_wordpiece_special_symbols_are_numbered_from_zero_and_pairs_have_types():
    tokenizer = WordPiece(500).train(TEXTS)
    vocabulary = tokenizer.vocabulary
    assert (vocabulary.pad, vocabulary.unk, vocabulary.cls, vocabulary.sep, vocabulary.mask) == (0, 1, 2, 3, 4)
    assert np.flatnonzero(vocabulary.special).tolist() == [0, 1, 2, 3, 4]
    pair = tokenizer.raw.encode("the fox", "the dog")
    assert pair.tokens == ["[CLS]", "the", "fox", "[SEP]", "the", "dog", "[SEP]"]
    assert pair.type_ids == [0, 0, 0, 0, 1, 1, 1]


@pytest.mark.parametrize("spec", [ByteLevelBPE(400, layout="roberta"), Unigram(300, layout="xlm-r")])
def test_fairseq_layouts_number_their_symbols_in_the_papers_order(spec):
    tokenizer = spec.train(TEXTS)
    size = tokenizer.vocabulary.size
    assert size <= spec.vocab_size
    assert [tokenizer.raw.id_to_token(i) for i in (0, 1, 2, 3, size - 1)] == ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    assert np.flatnonzero(tokenizer.vocabulary.special).tolist() == [0, 1, 2, 3, size - 1]
    framed = tokenizer.raw.encode("a", "b")
    assert [i for i in framed.ids if tokenizer.vocabulary.special[i]] == [0, 2, 2, 2]
    assert set(framed.type_ids) == {0}


@pytest.mark.parametrize("spec", [ByteLevelBPE(400, layout="roberta"), Unigram(300, layout="xlm-r")])
def test_a_mask_stands_for_a_word_with_the_space_before_it(spec):
    tokenizer = spec.train(TEXTS)
    mask = tokenizer.vocabulary.mask
    words = ["the", "dog", "the"]
    around = [tokenizer.encode("the"), tokenizer.encode("the dog the")]
    masked = tokenizer.encode(f"{words[0]} <mask> {words[2]}")
    assert masked[: len(around[0])] == around[0] and masked[len(around[0])] == mask
    assert masked[len(around[0]) + 1 :] == around[1][-(len(masked) - len(around[0]) - 1) :]


def test_gpt2_layout_writes_any_text_and_reads_it_back():
    tokenizer = ByteLevelBPE(300).train(["hello"])
    text = "  Zürich\n\t한국어 🙂 "
    assert tokenizer.decode(tokenizer.encode(text)) == text
    assert tokenizer.vocabulary.bos == tokenizer.vocabulary.eos == 0


@pytest.mark.parametrize(
    ("spec", "special"), [(WordPiece(500), "[SEP]"), (ByteLevelBPE(500), "<|endoftext|>"), (Unigram(300), "</s>")]
)
def test_a_corpus_cannot_write_special_symbols_but_a_user_can(spec, special):
    tokenizer = spec.train(TEXTS)
    number = tokenizer.raw.token_to_id(special)
    assert number in tokenizer.encode(f"the {special} dog")
    assert number not in tokenizer.encode_batch([f"the {special} dog"])[0]


def test_words_begin_where_the_vocabulary_says():
    wordpiece = WordPiece(300).train(["unbelievable things"] * 3)
    ids = wordpiece.encode("unbelievable, zebra")
    continues = wordpiece.vocabulary.continues_word[ids]
    assert [t.startswith("##") for t in wordpiece.tokens(ids)] == continues.tolist()
    bpe = ByteLevelBPE(258).train(["hi"])
    ids = bpe.encode("hi, yo한")
    assert bpe.tokens(ids) == ["h", "i", ",", "▁", "y", "o", "<0xED>", "<0x95>", "<0x9C>"] or bpe.tokens(ids)[0] == "hi"
    start = {token: bool(c) for token, c in zip(bpe.tokens(ids), bpe.vocabulary.continues_word[ids])}
    assert start[","] is False
    assert start["▁"] is False
    assert start["o"] is True
    assert start["<0x95>"] is True


def test_vocabulary_too_small_is_an_input_error():
    with pytest.raises(InputError, match=r"vocab_size = 200 cannot hold the 1 special tokens and 256 bytes"):
        ByteLevelBPE(200).train(TEXTS)
    with pytest.raises(InputError, match=r"vocab_size = 4 cannot hold the 5 special tokens"):
        WordPiece(4).train(TEXTS)
    with pytest.raises(InputError, match=r"vocab_size = 40 .*raise --vocab-size to at least"):
        WordPiece(40).train(TEXTS)
    with pytest.raises(InputError, match="Raise --vocab-size"):
        Unigram(20).train(TEXTS)


def test_no_text_to_train_on_is_an_input_error():
    with pytest.raises(InputError, match="no text"):
        WordPiece(300).train(["", "  "])


def test_rare_characters_fall_outside_the_alphabet():
    texts = ["aaaa bbbb cccc dddd " * 200, "☃"]
    assert WordPiece(50).train(texts).raw.token_to_id("☃") is not None
    assert WordPiece(50, character_coverage=0.999).train(texts).raw.token_to_id("☃") is None


@pytest.mark.parametrize("spec", [WordPiece(400), Unigram(400)])
def test_a_rare_script_of_a_mixed_corpus_keeps_its_letters(spec):
    texts = ["The quick brown fox jumps over the lazy dog. " * 20_000, "नमस्ते दुनिया नमस्ते दुनिया"]
    tokenizer = spec.train(texts)
    assert tokenizer.vocabulary.unk not in tokenizer.encode("नमस्ते दुनिया")
    seen_once = spec.train([texts[0], "☃"])
    assert seen_once.vocabulary.unk in seen_once.encode("☃")


@pytest.mark.parametrize(("entries", "case"), [(["the", "##s"], "uncased"), (["The", "the", "##s"], "cased")])
def test_vocab_txt_says_whether_case_was_guessed(tmp_path, entries, case):
    lines = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *entries]
    (tmp_path / "vocab.txt").write_text("\n".join(lines) + "\n")
    tokenizer = Tokenizer.load(tmp_path / "vocab.txt")
    assert f"{case} guessed from its entries" in tokenizer.source
    expected = {"uncased": ["the", "##s"], "cased": ["The", "[UNK]"]}[case]
    assert [tokenizer.raw.id_to_token(tokenizer.encode(t)[-1 if t == "thes" else 0]) for t in ("The",)] == expected[:1]
    assert tokenizer.encode("a [MASK]", add_special_tokens=True)[0] == 2
    assert tokenizer.vocabulary.mask == 4


def test_vocab_json_with_merges_gives_the_ids_of_tokenizer_json(tmp_path):
    tokenizer = ByteLevelBPE(400).train(TEXTS)
    tokenizer.save(tmp_path)
    loaded = Tokenizer.load(tmp_path / "vocab.json")
    for text in TEXTS[:5]:
        assert loaded.encode(text) == tokenizer.encode(text)
    (tmp_path / "merges.txt").unlink()
    with pytest.raises(InputError, match=r"merges\.txt is missing"):
        Tokenizer.load(tmp_path / "vocab.json")


@pytest.mark.parametrize("model_type", ["unigram", "bpe"])
@pytest.mark.parametrize("byte_fallback", [False, True])
def test_sentencepiece_models_give_sentencepiece_ids(tmp_path, model_type, byte_fallback):
    import sentencepiece

    corpus = tmp_path / "corpus.txt"
    corpus.write_text("\n".join(TEXTS * 5))
    size = 500 if byte_fallback else 240
    sentencepiece.SentencePieceTrainer.train(
        input=str(corpus),
        model_prefix=str(tmp_path / "spm"),
        model_type=model_type,
        vocab_size=size,
        byte_fallback=byte_fallback,
        hard_vocab_limit=False,
        pad_id=3,
        minloglevel=2,
    )
    theirs = sentencepiece.SentencePieceProcessor(model_file=str(tmp_path / "spm.model"))
    ours = Tokenizer.load(tmp_path / "spm.model")
    assert (ours.vocabulary.unk, ours.vocabulary.bos, ours.vocabulary.eos, ours.vocabulary.pad) == (0, 1, 2, 3)
    for text in [*TEXTS[:5], "The  dog's café ½ ﬁne 안녕", "the unbelievable fox"]:
        assert ours.encode(text) == theirs.encode(text), text


def test_what_is_no_tokenizer_is_refused_by_name(tmp_path):
    with pytest.raises(InputError, match="There is no tokenizer at"):
        Tokenizer.load(tmp_path / "absent")
    with pytest.raises(InputError, match="holds no tokenizer"):
        Tokenizer.load(tmp_path)
    (tmp_path / "tokenizer.json").write_text("{not json")
    with pytest.raises(InputError, match=r"tokenizer\.json is not a tokenizer"):
        Tokenizer.load(tmp_path)


def test_xlm_layout_numbers_its_symbols_as_released_and_ends_and_begins_with_one():
    tokenizer = ByteLevelBPE(300, layout="xlm").train(["some text to read"])
    assert tokenizer.tokens(range(5)) == ["<s>", "</s>", "<pad>", "<unk>", "<mask>"]
    words = tokenizer.vocabulary
    assert words.cls == words.sep == words.bos == words.eos == 1 and (words.pad, words.unk, words.mask) == (2, 3, 4)
    one, other = tokenizer.encode("some"), tokenizer.encode("text")
    assert tokenizer.encode("some", add_special_tokens=True) == [1, *one, 1]
    assert tokenizer.raw.encode("some", "text").ids == [1, *one, 1, *other, 1]


def test_blenderbot_layout_numbers_its_symbols_as_released_and_only_ends_a_text():
    tokenizer = ByteLevelBPE(300, layout="blenderbot").train(["some text to read"])
    assert tokenizer.symbols()[:4] == ["<pad>", "<s>", "</s>", "<unk>"]
    vocabulary = tokenizer.vocabulary
    assert (vocabulary.pad, vocabulary.bos, vocabulary.eos, vocabulary.unk, vocabulary.mask) == (0, 1, 2, 3, None)
    assert tokenizer.encode("some", add_special_tokens=True) == [*tokenizer.encode("some"), 2]


def test_marian_layout_ends_a_text_with_its_first_symbol_and_has_padding_as_its_last():
    tokenizer = Unigram(300, layout="marian").train(TEXTS)
    words = tokenizer.vocabulary
    assert words.size <= 300
    assert (words.eos, words.unk, words.pad) == (0, 1, words.size - 1)
    assert np.flatnonzero(words.special).tolist() == [0, 1, words.size - 1]
    assert tokenizer.tokens([0, 1, words.size - 1]) == ["</s>", "<unk>", "<pad>"]
    one, other = tokenizer.encode("the fox"), tokenizer.encode("the dog")
    assert tokenizer.encode("the fox", add_special_tokens=True) == [*one, 0]
    assert tokenizer.raw.encode("the fox", "the dog").ids == [*one, 0, *other, 0]
    # Unlike a mask, padding stands for no word and takes no space along.
    assert tokenizer.raw.encode("the <pad>", add_special_tokens=False).offsets[-1] == (4, 9)


def test_the_layouts_of_a_kind_begin_with_its_own():
    assert [spec.layout for spec in layouts(Unigram())][:2] == ["t5", "marian"]
    assert layouts(Unigram(layout="albert"))[0] == Unigram(layout="albert")
    assert [spec.layout for spec in layouts(ByteLevelBPE())] == ["gpt2", "blenderbot", "roberta", "xlm"]


def test_unigram_learns_from_texts_that_write_of_unknown_words() -> None:
    # `tokenizers` has a piece of this name of its own while it trains.
    texts = ["the quick brown fox jumps over the lazy dog. " * 20, 'and "<UNK>" stands for what it does not know']
    trained = Unigram(vocab_size=120).train(texts)
    assert trained.decode(trained.encode("the <UNK> fox")) == "the <UNK> fox"
