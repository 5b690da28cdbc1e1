"""Tokenizers of OPUS-MT folders: a SentencePiece model for each language over one numbering."""

import json
from pathlib import Path

import pytest

from elision.errors import InputError
from elision.text.tokenizer import Tokenizer

ENGLISH = [
    "The cat sat on the mat.",
    "A dog runs over the hill.",
    "Two birds sing in the old tree.",
    "It was cold.",
] * 5
GERMAN = ["Die Katze saß auf der Matte.", "Ein Hund läuft über den Hügel.", "Zwei Vögel singen im Baum.", "Kalt."] * 5


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    import sentencepiece

    folder = tmp_path_factory.mktemp("opus")
    pieces = ["</s>", "<unk>", ">>de<<"]
    for name, texts in (("source", ENGLISH), ("target", GERMAN)):
        (folder / f"{name}.txt").write_text("\n".join(texts), encoding="utf-8")
        sentencepiece.SentencePieceTrainer.train(
            input=str(folder / f"{name}.txt"), model_prefix=str(folder / name), vocab_size=60, bos_id=-1, eos_id=0,
            unk_id=1, character_coverage=1.0, hard_vocab_limit=False, minloglevel=2,
        )  # fmt: skip
        (folder / f"{name}.model").rename(folder / f"{name}.spm")
        model = sentencepiece.SentencePieceProcessor(model_file=str(folder / f"{name}.spm"))
        pieces += [piece for i in range(2, len(model)) if (piece := model.id_to_piece(i)) not in pieces]
    numbers = {piece: number for number, piece in enumerate([*pieces, "<pad>"])}
    (folder / "vocab.json").write_text(json.dumps(numbers, ensure_ascii=False), encoding="utf-8")
    settings = {"source_lang": "en", "target_lang": "de", "tokenizer_class": "MarianTokenizer"}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings), encoding="utf-8")
    return folder


def test_texts_become_the_ids_that_transformers_gives_them(folder: Path) -> None:
    from transformers import MarianTokenizer

    ours, theirs = Tokenizer.load(folder), MarianTokenizer.from_pretrained(folder)
    for text in [*ENGLISH[:4], "  the   dogs sat ", "zebra 9", ">>de<< The cat"]:
        assert ours.encode(text, add_special_tokens=True) == theirs(text)["input_ids"], text
    words = ours.vocabulary
    assert (words.eos, words.unk, words.pad) == (0, 1, words.size - 1) == (0, 1, theirs.pad_token_id)
    assert "source.spm" in ours.source


def test_pieces_of_the_other_language_are_written_out_but_no_text_is_cut_into_them(folder: Path) -> None:
    ours = Tokenizer.load(folder)
    numbers = json.loads((folder / "vocab.json").read_text(encoding="utf-8"))
    written = [numbers[piece] for piece in numbers if "ß" in piece][:1]
    assert written and "ß" in ours.decode(written)
    import sentencepiece

    english = sentencepiece.SentencePieceProcessor(model_file=str(folder / "source.spm"))
    known = {english.id_to_piece(i) for i in range(len(english))}
    for text in ENGLISH:
        assert set(ours.tokens(ours.encode(text))) <= known


def test_a_saved_copy_is_the_same_tokenizer(folder: Path, tmp_path: Path) -> None:
    ours = Tokenizer.load(folder)
    ours.save(tmp_path)
    assert Tokenizer.load(tmp_path).fingerprint == ours.fingerprint


def test_numbers_with_gaps_are_refused(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "source.spm").write_bytes((folder / "source.spm").read_bytes())
    (tmp_path / "vocab.json").write_text('{"</s>": 0, "<unk>": 1, "a": 3}')
    with pytest.raises(InputError, match=r"vocab\.json does not number its pieces from 0 without gaps"):
        Tokenizer.load(tmp_path)
