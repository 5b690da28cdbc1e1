"""Tokenizers of OPUS-MT: a SentencePiece model for each language, and the numbers of both languages' pieces in a vocab.json."""

import json
from pathlib import Path

import tokenizers
from tokenizers import AddedToken

from elision.errors import InputError
from elision.text.templates import unigram_template

SOURCE, TARGET = "source.spm", "target.spm"
# Far below the score of any piece: what only the other language has is never what a text is cut into.
NEVER = -1e4


def read_two_sided(vocab: Path, source: tokenizers.Tokenizer) -> tokenizers.Tokenizer:
    """Return the tokenizer that cuts texts as `source`, the source language's, does and numbers pieces as `vocab` says.

    It writes out pieces of both languages, but it cuts every text as one of the source language: for translating. A letter
    that only the target language's model knows becomes a piece of that.

    Raises: InputError when the source's model is no unigram model, or the numbers have gaps.
    """
    numbers: dict[str, int] = json.loads(vocab.read_text(encoding="utf-8"))
    pieces = sorted(numbers, key=numbers.__getitem__)
    if [numbers[piece] for piece in pieces] != list(range(len(pieces))) or "<unk>" not in numbers:
        raise InputError(f"{vocab} does not number its pieces from 0 without gaps, or has no <unk>: copy it again")
    description = json.loads(source.to_str())
    if description["model"]["type"] != "Unigram":
        raise InputError(f"{vocab.with_name(SOURCE)} is no unigram model, which those of OPUS-MT are")
    special = [piece for piece in ("</s>", "<unk>", "<pad>") if piece in numbers]
    # Symbols that say which language is to be written, in models of several.
    special += [piece for piece in pieces if piece.startswith(">>") and piece.endswith("<<")]
    scores = dict(description["model"]["vocab"])
    scored = [[piece, NEVER if piece in special else scores.get(piece, NEVER)] for piece in pieces]
    description["model"] |= {"vocab": scored, "unk_id": numbers["<unk>"]}
    description["added_tokens"] = []
    raw = tokenizers.Tokenizer.from_str(json.dumps(description, ensure_ascii=False))
    raw.add_special_tokens([AddedToken(piece, normalized=False) for piece in special])
    raw.post_processor = unigram_template(raw, "marian")
    return raw
