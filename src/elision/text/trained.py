"""A tokenizer that is ready to use: text to ids and back, what its symbols mean, and the files others can read."""

import functools
import hashlib
import json
import re
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import tokenizers

from elision import atomic
from elision.errors import InputError
from elision.text import loading, pieces
from elision.text.scripts import is_full_stop, is_spaceless
from elision.text.vocabulary import ROLES, Vocabulary

FILE = "tokenizer.json"


class Tokenizer:
    """Text to ids and back, over a `tokenizers.Tokenizer`, plus the role of each special symbol.

    `roles` maps role names (pad, unk, cls, sep, mask, bos, eos) to the symbol that plays them; one symbol may play
    several (GPT-2's `<|endoftext|>` is bos and eos).
    """

    def __init__(self, raw: tokenizers.Tokenizer, roles: dict[str, str], source: str = ""):
        unknown = sorted(set(roles) - set(ROLES))
        assert not unknown, f"unknown roles {unknown}"
        missing = {role: symbol for role, symbol in roles.items() if raw.token_to_id(symbol) is None}
        if missing:
            raise InputError(
                f"The special tokens {missing} of {source or 'this tokenizer'} are not in its vocabulary. "
                "Correct tokenizer_config.json or add the tokens."
            )
        raw.no_padding()
        raw.no_truncation()
        self.raw = raw
        self.roles = dict(roles)
        self.source = source

    def __repr__(self) -> str:
        kind, source = type(self.raw.model).__name__, f", {self.source}" if self.source else ""
        return f"Tokenizer({kind}, {self.vocabulary.size} symbols, {self.fingerprint[:12]}{source})"

    @classmethod
    def load(cls, path: str | Path) -> "Tokenizer":
        """Read a tokenizer from any of the usual files.

        `path` may be a folder (a saved tokenizer, a store, a run or a Hugging Face folder), tokenizer.json, vocab.txt
        (BERT), vocab.json with merges.txt beside it (GPT-2), or a SentencePiece .model (unigram or BPE).

        Raises: InputError when nothing there is a tokenizer.
        """
        raw, roles, source = loading.read(Path(path))
        return cls(raw, roles, source)

    def encode(self, text: str, add_special_tokens: bool = False) -> list[int]:
        """Return the ids of `text`. A special symbol written in the text ("[MASK]") becomes that symbol."""
        return self.raw.encode(text, add_special_tokens=add_special_tokens).ids

    def encode_batch(self, texts: Sequence[str]) -> list[np.ndarray]:
        """Return the ids of each text of a corpus as int32 arrays, on all cores and without special symbols.

        Unlike `encode`, a special symbol written in the text stays ordinary text: a corpus about BERT must not put
        real [SEP] ids into its data.
        """
        return [np.array(encoding.ids, dtype=np.int32) for encoding in self.encodings(texts)]

    def encodings(self, texts: Sequence[str]) -> list[tokenizers.Encoding]:
        """Return what `encode_batch` does as the encoder's own objects; other Python threads run meanwhile."""
        return self._literal.encode_batch_fast(texts, add_special_tokens=False)

    def placed(self, texts: Sequence[str]) -> list[tokenizers.Encoding]:
        """Return what `encodings` does, with the characters of the text that each token stands for (`offsets`)."""
        return self._literal.encode_batch(texts, add_special_tokens=False)

    def decode(self, ids: Iterable[int], skip_special_tokens: bool = True) -> str:
        """Return the text that the ids stand for."""
        return self.raw.decode([int(i) for i in ids], skip_special_tokens=skip_special_tokens)

    def tokens(self, ids: Iterable[int]) -> list[str]:
        """Return one printable piece per id: "##ing" in WordPiece, "▁word" where a space leads, "<0xEC>" for a lone
        byte, and a special symbol as itself.
        """
        return [self._printable[int(i)] for i in ids]

    def symbols(self) -> list[str]:
        """Return every symbol as the vocabulary writes it, in the order of the ids."""
        return list(self._strings)

    @functools.cached_property
    def vocabulary(self) -> Vocabulary:
        """The size, the special symbols and the word structure, as arrays."""
        size = self._size
        special = np.zeros(size, dtype=bool)
        for i, token in self.raw.get_added_tokens_decoder().items():
            special[i] = token.special
        ids = {role: self.raw.token_to_id(symbol) for role, symbol in self.roles.items()}
        special[list(ids.values())] = True
        continues_word = np.array(pieces.continues_word(self._strings, self._scheme), dtype=bool) & ~special
        texts = pieces.texts(self._strings, self._scheme)
        full_stop = np.array([is_full_stop(text) for text in texts], dtype=bool) & ~special
        spaceless = np.array([is_spaceless(text) for text in texts], dtype=bool) & ~special
        # By name: T5 numbers them downwards from the last symbol, others upwards.
        named = {token: re.fullmatch(r"<extra_id_(\d+)>", token) for token in self._strings}
        used = sorted((int(match[1]), token) for token, match in named.items() if match)
        sentinels = np.array([self.raw.token_to_id(token) for _, token in used], dtype=np.int64)
        for array in (special, continues_word, full_stop, spaceless, sentinels):
            array.flags.writeable = False
        return Vocabulary(
            size=size,
            special=special,
            continues_word=continues_word,
            full_stop=full_stop,
            spaceless=spaceless,
            sentinels=sentinels,
            symbols={self._strings[i]: int(i) for i in np.flatnonzero(special)},
            **ids,
        )

    @functools.cached_property
    def fingerprint(self) -> str:
        """The SHA-256 of the canonical tokenizer.json, in hex: equal fingerprints give equal ids."""
        canonical = json.dumps(json.loads(self.raw.to_str()), sort_keys=True, ensure_ascii=False, separators=(",", ":"))
        return hashlib.sha256(canonical.encode("utf-8", "surrogatepass")).hexdigest()

    def save(self, folder: str | Path) -> None:
        """Write the tokenizer into `folder` so that `transformers.AutoTokenizer` gives identical ids.

        Always tokenizer.json, tokenizer_config.json and special_tokens_map.json; also vocab.txt for WordPiece, and
        vocab.json with merges.txt for BPE, for older readers.
        """
        folder = Path(folder)
        model = json.loads(self.raw.to_str())["model"]
        symbols = {f"{role}_token": symbol for role, symbol in self.roles.items()}
        settings = {
            # The class that takes tokenizer.json as it is: a family's own class would rebuild the normaliser.
            "tokenizer_class": "PreTrainedTokenizerFast",
            "clean_up_tokenization_spaces": False,
            "model_input_names": ["input_ids", "token_type_ids", "attention_mask"]
            if model["type"] == "WordPiece"
            else ["input_ids", "attention_mask"],
            **symbols,
        }
        atomic.write_json(folder / "special_tokens_map.json", symbols)
        atomic.write_json(folder / "tokenizer_config.json", settings)
        if model["type"] == "WordPiece":
            atomic.write_text(folder / "vocab.txt", "".join(f"{token}\n" for token in self._strings))
        elif model["type"] == "BPE":
            atomic.write_json(folder / "vocab.json", model["vocab"])
            merges = (merge if isinstance(merge, str) else " ".join(merge) for merge in model["merges"])
            atomic.write_text(folder / "merges.txt", "#version: 0.2\n" + "".join(f"{merge}\n" for merge in merges))
        # Last, because its presence is what makes the folder a tokenizer.
        atomic.write_text(folder / FILE, self.raw.to_str(pretty=True))

    @functools.cached_property
    def _literal(self) -> tokenizers.Tokenizer:
        literal = tokenizers.Tokenizer.from_str(self.raw.to_str())
        literal.encode_special_tokens = True
        return literal

    @functools.cached_property
    def _size(self) -> int:
        # A vocabulary with holes in its numbering still needs a row for its highest id.
        return max(self.raw.get_vocab(with_added_tokens=True).values()) + 1

    @functools.cached_property
    def _strings(self) -> list[str]:
        strings = [""] * self._size
        for token, i in self.raw.get_vocab(with_added_tokens=True).items():
            strings[i] = token
        return strings

    @functools.cached_property
    def _scheme(self) -> pieces.Scheme:
        return pieces.scheme_of(json.loads(self.raw.to_str()))

    @functools.cached_property
    def _printable(self) -> list[str]:
        return pieces.printable(self._strings, self._scheme, self.vocabulary.special)
