"""Tokenizers in the files that others wrote: tokenizer.json, vocab.txt, vocab.json with merges.txt, SentencePiece."""

import json
from pathlib import Path
from typing import Any

import tokenizers
from tokenizers import AddedToken, Regex, decoders, models, normalizers, pre_tokenizers, processors

from elision.errors import InputError
from elision.text.normalizing import bert_normalizer
from elision.text.templates import bert_template, roberta_template
from elision.text.two_sided import SOURCE, read_two_sided
from elision.text.vocabulary import ROLES

# What a folder may hold, the most exact first.
_NAMES = ("tokenizer.json", "vocab.json", "vocab.txt", "spiece.model", "tokenizer.model", "sentencepiece.bpe.model")

_WELL_KNOWN = {
    "pad": ("[PAD]", "<pad>", "<|padding|>", "<|pad|>"),
    "unk": ("[UNK]", "<unk>"),
    "cls": ("[CLS]", "<cls>"),
    "sep": ("[SEP]", "<sep>"),
    "mask": ("[MASK]", "<mask>"),
    "bos": ("<s>", "<bos>", "<|startoftext|>", "<|endoftext|>"),
    "eos": ("</s>", "<eos>", "<|endoftext|>"),
}

Parts = tuple[tokenizers.Tokenizer, dict[str, str], str]


def read(path: Path) -> Parts:
    """Return the tokenizer at `path`, which symbol plays which role, and where it came from, in words.

    Raises: InputError when there is none or its file is damaged.
    """
    file = _find(path)
    try:
        if file.suffix == ".model":
            raw, note = read_sentencepiece(file), "SentencePiece model"
        elif file.name.endswith("vocab.txt") or file.suffix == ".txt":
            raw, note = read_vocab_txt(file)
        elif (file.parent / SOURCE).is_file() and file.name == "vocab.json":
            raw, note = (
                read_two_sided(file, read_sentencepiece(file.parent / SOURCE)),
                "SentencePiece, cut by source.spm",
            )
        elif file.name.endswith("vocab.json"):
            raw, note = read_bpe(file, file.with_name(file.name.replace("vocab.json", "merges.txt"))), "byte-level BPE"
        else:
            raw, note = tokenizers.Tokenizer.from_file(str(file)), ""
    except (InputError, OSError):
        raise
    except Exception as error:
        # The parsers of `tokenizers` and protobuf raise bare Exceptions of their own.
        raise InputError(f"{file} is not a tokenizer that can be read: {error}.") from error
    return raw, roles_of(raw, file.parent), f"{file}" + (f" ({note})" if note else "")


def roles_of(raw: tokenizers.Tokenizer, folder: Path) -> dict[str, str]:
    """Return role -> symbol: as the folder's own files say, else by the well-known names that the vocabulary has."""
    declared: dict[str, str] = {}
    for name in ("special_tokens_map.json", "tokenizer_config.json"):
        for key, value in _json(folder / name).items():
            symbol = value.get("content") if isinstance(value, dict) else value
            if key.endswith("_token") and key[:-6] in ROLES and isinstance(symbol, str):
                declared[key[:-6]] = symbol
    roles = {role: symbol for role, symbol in declared.items() if raw.token_to_id(symbol) is not None}
    if roles:
        return roles
    for role, names in _WELL_KNOWN.items():
        symbol = next((name for name in names if raw.token_to_id(name) is not None), None)
        if symbol is not None:
            roles[role] = symbol
    if "mask" in roles and roles.get("bos") == "<s>" and "cls" not in roles and type(raw.model).__name__ == "BPE":
        # RoBERTa and BART: <s> and </s> do what [CLS] and [SEP] do in BERT.
        roles |= {"cls": "<s>", "sep": "</s>"}
    return roles


def read_vocab_txt(file: Path) -> tuple[tokenizers.Tokenizer, str]:
    """Read BERT's vocab.txt, one symbol a line. Case comes from tokenizer_config.json, else from the entries."""
    lines = file.read_text(encoding="utf-8").split("\n")
    symbols = [line.rstrip("\r") for line in (lines[:-1] if lines[-1] == "" else lines)]
    if "[UNK]" not in symbols:
        raise InputError(f"{file} has no [UNK] line, so it is not a WordPiece vocabulary (one symbol a line).")
    settings = _json(file.parent / "tokenizer_config.json")
    lowercase = settings.get("do_lower_case")
    note = "as tokenizer_config.json says"
    if lowercase is None:
        lowercase = not any(symbol != symbol.lower() for symbol in symbols if not symbol.startswith("["))
        note = "guessed from its entries"
    raw = tokenizers.Tokenizer(models.WordPiece({s: i for i, s in enumerate(symbols)}, unk_token="[UNK]"))
    strip = settings.get("strip_accents")
    raw.normalizer = bert_normalizer(lowercase, "bert" if (lowercase if strip is None else strip) else "keep")
    raw.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    raw.decoder = decoders.WordPiece(prefix="##")
    raw.add_special_tokens([s for s in ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]") if s in symbols])
    if "[CLS]" in symbols and "[SEP]" in symbols:
        raw.post_processor = bert_template(raw)
    return raw, f"WordPiece, {'uncased' if lowercase else 'cased'} {note}"


def read_bpe(vocab: Path, merges: Path) -> tokenizers.Tokenizer:
    """Read GPT-2's or RoBERTa's vocab.json and merges.txt."""
    if not merges.exists():
        raise InputError(f"{vocab} needs its merges beside it: {merges.name} is missing in {vocab.parent}.")
    raw = tokenizers.Tokenizer(models.BPE.from_file(str(vocab), str(merges)))
    prefix = bool(_json(vocab.parent / "tokenizer_config.json").get("add_prefix_space", False))
    raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=prefix)
    raw.decoder = decoders.ByteLevel()
    symbols = raw.get_vocab()
    raw.add_special_tokens([s for names in _WELL_KNOWN.values() for s in names if s in symbols and s != "<mask>"])
    if "<mask>" in symbols:
        raw.add_special_tokens([AddedToken("<mask>", lstrip=True)])
    is_roberta = {"<s>", "</s>", "<mask>"} <= set(symbols)
    raw.post_processor = roberta_template(raw) if is_roberta else processors.ByteLevel(trim_offsets=False)
    return raw


def read_sentencepiece(file: Path) -> tokenizers.Tokenizer:
    """Read a SentencePiece .model: unigram or BPE, with its own normalisation table and its own ids."""
    from sentencepiece import sentencepiece_model_pb2

    proto = sentencepiece_model_pb2.ModelProto()
    proto.ParseFromString(file.read_bytes())
    if not proto.pieces:
        raise InputError(f"{file} holds no SentencePiece vocabulary.")
    kind = proto.pieces[0].__class__
    entries = [(piece.piece, piece.score) for piece in proto.pieces]
    has_bytes = any(piece.type == kind.BYTE for piece in proto.pieces)
    unknown = next(i for i, piece in enumerate(proto.pieces) if piece.type == kind.UNKNOWN)
    if proto.trainer_spec.model_type == proto.trainer_spec.UNIGRAM:
        model = models.Unigram(entries, unknown, byte_fallback=has_bytes)
    elif proto.trainer_spec.model_type == proto.trainer_spec.BPE:
        ids = {piece: i for i, (piece, _) in enumerate(entries)}
        normal = [piece.piece for piece in proto.pieces if piece.type == kind.NORMAL]
        model = models.BPE(
            ids, _merges(normal, dict(entries)), unk_token=entries[unknown][0], fuse_unk=True, byte_fallback=has_bytes
        )
    else:
        raise InputError(f"{file} is a SentencePiece word or character model; only unigram and BPE can be read.")
    raw = tokenizers.Tokenizer(model)
    rules = proto.normalizer_spec
    steps = [normalizers.Precompiled(rules.precompiled_charsmap)] if rules.precompiled_charsmap else []
    if rules.remove_extra_whitespaces:
        steps += [normalizers.Replace(Regex(" {2,}"), " "), normalizers.Strip()]
    if steps:
        raw.normalizer = normalizers.Sequence(steps)
    scheme = "always" if rules.add_dummy_prefix else "never"
    # Splitting at spaces first is faster, and changes nothing as long as no piece reaches over one.
    split = not any("▁" in piece[1:] for piece, _ in entries)
    raw.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme=scheme, split=split)
    if has_bytes:
        # After the fusing, Metaspace's own decoder would take every space for the one that was put first.
        steps = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
        raw.decoder = decoders.Sequence([*steps, *[decoders.Strip(" ", 1, 0)] * (scheme == "always")])
    else:
        raw.decoder = decoders.Metaspace(prepend_scheme=scheme)
    raw.add_special_tokens([p.piece for p in proto.pieces if p.type in (kind.CONTROL, kind.UNKNOWN)])
    own = [p.piece for p in proto.pieces if p.type == kind.USER_DEFINED]
    raw.add_tokens([AddedToken(piece, normalized=False) for piece in own])
    return raw


def _merges(pieces: list[str], scores: dict[str, float]) -> list[tuple[str, str]]:
    """Recover BPE's merges from a vocabulary: every way to split a piece in two known ones, best score first."""
    known = set(pieces)
    merges = []
    for piece in pieces:
        cuts = [(piece[:i], piece[i:]) for i in range(1, len(piece))]
        parts = [(a, b) for a, b in cuts if a in known and b in known]
        merges += [(scores[piece], a, b) for a, b in sorted(parts, key=lambda ab: (-scores[ab[0]], -scores[ab[1]]))]
    return [(a, b) for _, a, b in sorted(merges, key=lambda merge: -merge[0])]


def _find(path: Path) -> Path:
    if path.is_file():
        return path
    if not path.is_dir():
        raise InputError(
            f"There is no tokenizer at {path}. Give a folder, a tokenizer.json, vocab.txt, vocab.json or .model file."
        )
    for folder in (path, path / "tokenizer"):
        for name in _NAMES:
            if (folder / name).is_file():
                return folder / name
        models_there = sorted(folder.glob("*.model"))
        if len(models_there) == 1:
            return models_there[0]
    raise InputError(f"The folder {path} holds no tokenizer; it would be one of: {', '.join(_NAMES)}.")


def _json(file: Path) -> dict[str, Any]:
    if not file.is_file():
        return {}
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise InputError(f"{file} is not valid JSON: {error}.") from error
    if not isinstance(content, dict):
        raise InputError(f"{file} must hold a JSON object.")
    return content
