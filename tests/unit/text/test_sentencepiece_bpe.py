"""SentencePiece's BPE as LLaMA has it."""

import json
from pathlib import Path

import pytest

from elision.cli.prepare import choose_tokenizer
from elision.errors import InputError
from elision.text.tokenizer import SentencePieceBPE, Tokenizer, layouts

TEXTS = [
    "The quick brown fox jumps over the lazy dog. It's unbelievable, isn't it?",
    "def fox(dog):\n    return dog + 1984",
    "안녕하세요. 오늘은 날씨가 좋습니다. 한국어 문장입니다.",
] * 4


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return SentencePieceBPE(400).train(TEXTS)


def test_special_symbols_come_first_then_the_bytes(tokenizer: Tokenizer) -> None:
    words = tokenizer.vocabulary
    assert (words.unk, words.bos, words.eos, words.pad, words.mask) == (0, 1, 2, None, None)
    assert tokenizer.symbols()[:5] == ["<unk>", "<s>", "</s>", "<0x00>", "<0x01>"]
    assert tokenizer.symbols()[258] == "<0xFF>"
    assert words.special.nonzero()[0].tolist() == [0, 1, 2]


@pytest.mark.parametrize(
    "text",
    [
        "The fox",
        " a leading space",
        "runs  of    spaces ",
        "\tlines\n\nand\r\ntabs",
        "déjà 🙂 नेपाली ½ ﬁne",
        "x",
        "",
        "\n",
        "<0x0A>",
    ],
)
def test_every_text_comes_back_as_it_was(tokenizer: Tokenizer, text: str) -> None:
    ids = tokenizer.encode(text)
    assert tokenizer.vocabulary.unk not in ids
    assert tokenizer.decode(ids) == text


def test_digits_stand_alone(tokenizer: Tokenizer) -> None:
    assert tokenizer.tokens(tokenizer.encode("1984 fox19")) == ["▁", *"1984", "▁fox", *"19"]


def test_runs_of_spaces_are_pieces_that_lead_no_word(tokenizer: Tokenizer) -> None:
    tokens = tokenizer.tokens(tokenizer.encode("fox(dog):\n    return"))
    at = tokens.index("<0x0A>")
    assert "".join(tokens[at + 1 :]).startswith("▁▁▁▁") and not tokens[at + 1].strip("▁")


def test_letters_and_punctuation_are_never_one_piece(tokenizer: Tokenizer) -> None:
    pieces = tokenizer.symbols()[259:]
    mixed = [piece for piece in pieces if any(c.isalpha() for c in piece) and any(c in ".,'():" for c in piece)]
    assert "▁fox" in pieces and not mixed


def test_characters_without_a_symbol_are_spelled_in_bytes(tokenizer: Tokenizer) -> None:
    assert tokenizer.tokens(tokenizer.encode("é")) == ["▁", "<0xC3>", "<0xA9>"]


def test_a_text_begins_with_its_symbol_and_none_is_read_out_of_a_corpus(tokenizer: Tokenizer) -> None:
    assert tokenizer.encode("fox", add_special_tokens=True) == [1, *tokenizer.encode("fox")]
    (ids,) = tokenizer.encode_batch(["a </s> b"])
    assert 2 not in ids and tokenizer.decode(ids) == "a </s> b"


def test_training_twice_gives_the_same_tokenizer(tokenizer: Tokenizer) -> None:
    assert SentencePieceBPE(400).train(reversed(TEXTS)).fingerprint == tokenizer.fingerprint


def test_what_is_saved_is_read_by_us_and_by_transformers(tokenizer: Tokenizer, tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    tokenizer.save(tmp_path)
    loaded = Tokenizer.load(tmp_path)
    assert (loaded.fingerprint, loaded.roles) == (tokenizer.fingerprint, tokenizer.roles)
    for model_type in (None, "llama", "mistral"):
        if model_type:
            (tmp_path / "config.json").write_text(json.dumps({"model_type": model_type}))
        theirs = AutoTokenizer.from_pretrained(tmp_path)
        for text in (*TEXTS[:3], " a  b\n\n 한국어 🙂", ""):
            ids = theirs(text)["input_ids"]
            assert ids == tokenizer.encode(text, add_special_tokens=True)
            assert theirs.decode(ids, skip_special_tokens=True) == text


def test_a_vocabulary_without_room_for_the_bytes_is_refused() -> None:
    with pytest.raises(InputError, match="cannot hold the 3 special tokens and 256 bytes: it must be at least 259"):
        SentencePieceBPE(258).train(TEXTS)


def test_it_has_one_layout_and_no_case_to_fold() -> None:
    assert layouts(SentencePieceBPE(400)) == [SentencePieceBPE(400)]
    assert choose_tokenizer(None, "sentencepiece-bpe", vocab_size=500) == SentencePieceBPE(500)
    with pytest.raises(InputError, match="sentencepiece-bpe, which keeps every letter"):
        choose_tokenizer(None, "sentencepiece-bpe", case="fold")
    with pytest.raises(InputError, match="sentencepiece-bpe, which has one layout only"):
        choose_tokenizer(None, "sentencepiece-bpe", layout="t5")


@pytest.mark.parametrize("dummy_prefix", [True, False])
def test_models_of_sentencepiece_with_bytes_decode_as_there(tmp_path: Path, dummy_prefix: bool) -> None:
    import sentencepiece

    (tmp_path / "corpus.txt").write_text("\n".join(TEXTS * 5))
    sentencepiece.SentencePieceTrainer.train(
        input=str(tmp_path / "corpus.txt"),
        model_prefix=str(tmp_path / "spm"),
        model_type="bpe",
        vocab_size=450,
        byte_fallback=True,
        hard_vocab_limit=False,
        add_dummy_prefix=dummy_prefix,
        normalization_rule_name="identity",
        remove_extra_whitespaces=False,
        minloglevel=2,
    )
    theirs = sentencepiece.SentencePieceProcessor(model_file=str(tmp_path / "spm.model"))
    ours = Tokenizer.load(tmp_path / "spm.model")
    for text in ("The quick fox", "한국어 🙂 dog", "lazy fox  dog"):
        assert ours.decode(theirs.encode(text)) == theirs.decode(theirs.encode(text)) == text
