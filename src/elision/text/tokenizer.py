"""The kinds of tokenizer a recipe can ask for, and how each is trained."""

import dataclasses
import json
import re
import unicodedata
from collections.abc import Iterable
from typing import Literal

import tokenizers
from tokenizers import decoders, models, pre_tokenizers, processors, trainers

from elision.text.normalizing import bert_normalizer, unigram_normalizer
from elision.text.sentencepiece_bpe import SentencePieceBPE
from elision.text.templates import bert_template, end_template, roberta_template, unigram_template, xlm_template
from elision.text.trained import Tokenizer
from elision.text.training import DEFAULT_COVERAGE, check_size, frequent_characters, listed, train, with_special_only
from elision.text.words import Words

__all__ = ["ByteLevelBPE", "SentencePieceBPE", "Tokenizer", "TokenizerSpec", "Unigram", "WordPiece", "Words"]


@dataclasses.dataclass(frozen=True)
class WordPiece:
    """BERT's tokenizer: words split at spaces and punctuation, then into the longest known pieces ("play", "##ing").

    Special symbols: [PAD] [UNK] [CLS] [SEP] [MASK] with ids 0 to 4, then `extra_special_tokens`.
    """

    vocab_size: int = 30522
    """Number of symbols, special ones included."""
    lowercase: bool = True
    """Fold upper case into lower case (the "uncased" models)."""
    accents: Literal["auto", "strip", "keep", "bert"] = "auto"
    """What to do with accents: `strip` them from Latin and Greek letters only, `keep` them, or do as the original
    `bert` does (removes every combining mark: that breaks Devanagari and splits Hangul); `auto` strips when
    lower-casing, as BERT does, and keeps otherwise."""
    character_coverage: float = DEFAULT_COVERAGE
    """Share of the characters of the training text that must get a symbol. Of the others, at the default, those that
    come twice and once in two million get one too while an eighth of the vocabulary holds them; the rest become [UNK]."""
    min_frequency: int = 2
    """How often a pair of pieces must occur to be joined."""
    extra_special_tokens: tuple[str, ...] = ()
    """More special symbols, numbered after the five."""

    @property
    def roles(self) -> dict[str, str]:
        """Which symbol plays which role."""
        return {"pad": "[PAD]", "unk": "[UNK]", "cls": "[CLS]", "sep": "[SEP]", "mask": "[MASK]"}

    def train(self, texts: Iterable[str]) -> Tokenizer:
        """Learn a vocabulary from `texts`, which are held in memory meanwhile.

        Raises: InputError when `texts` is empty or `vocab_size` cannot hold the special symbols and the alphabet.
        """
        special = [*self.roles.values(), *self.extra_special_tokens]
        check_size(self.vocab_size, len(special), 0)
        texts = listed(texts)
        raw = tokenizers.Tokenizer(models.WordPiece(unk_token="[UNK]"))
        raw.normalizer = bert_normalizer(self.lowercase, self.accents)
        raw.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
        raw.decoder = decoders.WordPiece(prefix="##")
        alphabet = frequent_characters(texts, self.character_coverage, raw.normalizer, self.vocab_size // 8)
        # The trainer numbers "##x" in the order of a randomly seeded hash table. Named beforehand, they come sorted and
        # two trainings on the same text agree.
        inner = [f"##{character}" for character in alphabet if not _stands_alone(character)]
        trainer = trainers.WordPieceTrainer(
            vocab_size=self.vocab_size,
            min_frequency=self.min_frequency,
            special_tokens=[*special, *inner],
            initial_alphabet=alphabet,
            limit_alphabet=len(alphabet),
            show_progress=False,
        )
        train(raw, trainer, texts, self.vocab_size, len(special))
        raw = with_special_only(raw, special)
        raw.post_processor = bert_template(raw)
        return Tokenizer(raw, self.roles)


@dataclasses.dataclass(frozen=True)
class ByteLevelBPE:
    """GPT-2's tokenizer: pairs of bytes joined by frequency; any text can be written and nothing is ever unknown."""

    vocab_size: int = 50257
    """Number of symbols, special ones included; at least 256 bytes and the special symbols."""
    layout: Literal["gpt2", "roberta", "xlm", "blenderbot"] = "gpt2"
    """Special symbols: `gpt2` has one, <|endoftext|>, to begin and to end; `roberta` (also BART) has <s> <pad> </s>
    <unk> with ids 0 to 3 and <mask> as the last one, and puts <s> and </s> around a text; `xlm` has <s> </s> <pad> <unk>
    <mask> with ids 0 to 4, and puts </s> on both sides of a text; `blenderbot` has <pad> <s> </s> <unk> with ids 0 to 3,
    and puts </s> after a text."""
    add_prefix_space: bool = False
    """Treat the first word of a text as if a space led it."""
    min_frequency: int = 2
    """How often a pair of pieces must occur to be joined."""
    extra_special_tokens: tuple[str, ...] = ()
    """More special symbols, numbered after those of the layout."""

    @property
    def roles(self) -> dict[str, str]:
        """Which symbol plays which role."""
        return dict(_BPE_LAYOUTS[self.layout][1])

    def train(self, texts: Iterable[str]) -> Tokenizer:
        """Learn merges from `texts`.

        Raises: InputError when `texts` is empty or `vocab_size` cannot hold the special symbols and the 256 bytes.
        """
        special = [*_BPE_LAYOUTS[self.layout][0], *self.extra_special_tokens]
        check_size(self.vocab_size, len(special), 256)
        vocab_size = self.vocab_size
        if self.layout in _LAST:
            special.remove(self.roles[_LAST[self.layout]])
            vocab_size -= 1
        raw = tokenizers.Tokenizer(models.BPE())
        raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=self.add_prefix_space)
        raw.decoder = decoders.ByteLevel()
        trainer = trainers.BpeTrainer(
            vocab_size=vocab_size,
            min_frequency=self.min_frequency,
            special_tokens=special,
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        )
        train(raw, trainer, listed(texts), vocab_size, len(special))
        if self.layout in _LAST:
            raw = _with_last(raw, self.roles[_LAST[self.layout]], is_word=_LAST[self.layout] == "mask")
        templates = {"roberta": roberta_template, "xlm": xlm_template, "blenderbot": end_template}
        if self.layout in templates:
            raw.post_processor = templates[self.layout](raw)
        else:
            raw.post_processor = processors.ByteLevel(trim_offsets=False)
        return Tokenizer(raw, self.roles)


@dataclasses.dataclass(frozen=True)
class Unigram:
    """SentencePiece's unigram model (T5, XLNet, ALBERT, Marian): the likeliest split under a unigram model of pieces."""

    vocab_size: int = 32000
    """Number of symbols, special ones included."""
    layout: Literal["t5", "xlnet", "albert", "xlm-r", "marian"] = "t5"
    """Special symbols in id order: `t5` <pad> </s> <unk>; `xlnet` <unk> <s> </s> <cls> <sep> <pad> <mask>;
    `albert` <pad> <unk> [CLS] [SEP] [MASK]; `xlm-r` <s> <pad> </s> <unk>, and <mask> as the last symbol of all;
    `marian` </s> <unk>, and <pad> as the last of all."""
    lowercase: bool = False
    """Fold upper case into lower case."""
    normal_form: Literal["nfc", "nfkc"] = "nfc"
    """Unicode form of the text: `nfc` only composes letters; `nfkc`, SentencePiece's own default, is there for parity
    with T5, XLNet and ALBERT. It also makes one of compatibility characters (full-width to ASCII, "½" to "1⁄2", "ﬁ" to
    "fi") and breaks what Korean comments are written with: "ㅋㅋ" becomes other letters, and "ㅋㅠ" a syllable, "큐"."""
    character_coverage: float = DEFAULT_COVERAGE
    """Share of the characters of the training text that must get a symbol. Of the others, at the default, those that
    come twice and once in two million get one too while an eighth of the vocabulary holds them; the rest become unknown."""
    num_sentinels: int = 0
    """Number of symbols <extra_id_0>, <extra_id_1> ... that stand for left-out spans (T5 has 100). As in T5 they are the
    last symbols and count downwards: <extra_id_0> has the highest id."""
    extra_special_tokens: tuple[str, ...] = ()
    """More special symbols, numbered after those of the layout."""

    @property
    def roles(self) -> dict[str, str]:
        """Which symbol plays which role."""
        return dict(_UNIGRAM_LAYOUTS[self.layout][1])

    def train(self, texts: Iterable[str]) -> Tokenizer:
        """Learn pieces and their probabilities from `texts`, which are held in memory meanwhile.

        Raises: InputError when `texts` is empty or `vocab_size` cannot hold the special symbols and the alphabet.
        """
        special = [*_UNIGRAM_LAYOUTS[self.layout][0], *self.extra_special_tokens]
        sentinels = [f"<extra_id_{i}>" for i in reversed(range(self.num_sentinels))]
        check_size(self.vocab_size, len(special) + len(sentinels), 0)
        vocab_size = self.vocab_size - len(sentinels)
        letters = sorted(set("".join([*special, *sentinels])))
        if self.layout in _LAST:
            special.remove(self.roles[_LAST[self.layout]])
            vocab_size -= 1
        texts = listed(texts)
        raw = tokenizers.Tokenizer(models.Unigram())
        raw.normalizer = unigram_normalizer(self.lowercase, self.normal_form)
        raw.pre_tokenizer = pre_tokenizers.Metaspace()
        raw.decoder = decoders.Metaspace()
        alphabet = frequent_characters(texts, self.character_coverage, raw.normalizer, self.vocab_size // 8)
        rare = re.compile(f"[^{re.escape(''.join(alphabet))}\\s]+")
        texts = [rare.sub(" ", raw.normalizer.normalize_str(text)) for text in texts]
        # The trainer has a piece of this name, whose score is no number, and stops where it finds it in a text.
        texts = [text.replace("<UNK>", "< UNK >") for text in texts]
        trainer = trainers.UnigramTrainer(
            vocab_size=vocab_size,
            special_tokens=special,
            unk_token=self.roles["unk"],
            # So that "</s>" in a corpus can be spelled with ordinary pieces.
            initial_alphabet=letters,
            show_progress=False,
        )
        num_later = self.vocab_size - vocab_size
        train(raw, trainer, texts, self.vocab_size, len(special) + num_later, num_later)
        raw = _without_special_pieces(raw, special)
        raw = _with_last(raw, *sentinels, is_word=True)
        if self.layout in _LAST:
            raw = _with_last(raw, self.roles[_LAST[self.layout]], is_word=_LAST[self.layout] == "mask")
        raw.post_processor = unigram_template(raw, self.layout)
        return Tokenizer(raw, self.roles)


TokenizerSpec = WordPiece | ByteLevelBPE | Unigram | SentencePieceBPE | Words

# Special symbols in id order, and which of them plays which role.
_BPE_LAYOUTS = {
    "gpt2": (["<|endoftext|>"], {"bos": "<|endoftext|>", "eos": "<|endoftext|>"}),
    "roberta": (
        ["<s>", "<pad>", "</s>", "<unk>", "<mask>"],
        {"cls": "<s>", "bos": "<s>", "pad": "<pad>", "sep": "</s>", "eos": "</s>", "unk": "<unk>", "mask": "<mask>"},
    ),
    "xlm": (
        # In the order of the released vocabularies. </s> begins and ends a text; <s> stands nowhere.
        ["<s>", "</s>", "<pad>", "<unk>", "<mask>"],
        dict.fromkeys(("cls", "bos", "sep", "eos"), "</s>") | {"pad": "<pad>", "unk": "<unk>", "mask": "<mask>"},
    ),
    "blenderbot": (
        # A reply begins with <s>, which no text does.
        ["<pad>", "<s>", "</s>", "<unk>"],
        {"pad": "<pad>", "bos": "<s>", "eos": "</s>", "unk": "<unk>"},
    ),
}
_UNIGRAM_LAYOUTS = {
    "t5": (
        ["<pad>", "</s>", "<unk>"],
        {"pad": "<pad>", "eos": "</s>", "unk": "<unk>"},
    ),
    "xlnet": (
        ["<unk>", "<s>", "</s>", "<cls>", "<sep>", "<pad>", "<mask>"],
        {"unk": "<unk>", "bos": "<s>", "eos": "</s>", "cls": "<cls>", "sep": "<sep>", "pad": "<pad>", "mask": "<mask>"},
    ),
    "albert": (
        ["<pad>", "<unk>", "[CLS]", "[SEP]", "[MASK]"],
        {"pad": "<pad>", "unk": "<unk>", "cls": "[CLS]", "sep": "[SEP]", "mask": "[MASK]"},
    ),
    "xlm-r": (
        ["<s>", "<pad>", "</s>", "<unk>", "<mask>"],
        {"cls": "<s>", "bos": "<s>", "pad": "<pad>", "sep": "</s>", "eos": "</s>", "unk": "<unk>", "mask": "<mask>"},
    ),
    "marian": (
        ["</s>", "<unk>", "<pad>"],
        {"eos": "</s>", "unk": "<unk>", "pad": "<pad>"},
    ),
}
# Layouts with a symbol after all others: the mask in fairseq's, what the first output follows in Marian's.
_LAST = {"roberta": "mask", "xlm-r": "mask", "marian": "pad"}


def layouts(spec: TokenizerSpec) -> list[TokenizerSpec]:
    """Return `spec` in each layout of its kind: its own first, then those with the fewest special symbols."""
    if isinstance(spec, WordPiece | SentencePieceBPE | Words):
        return [spec]
    known = _BPE_LAYOUTS if isinstance(spec, ByteLevelBPE) else _UNIGRAM_LAYOUTS
    names = sorted(known, key=lambda name: (name != spec.layout, len(known[name][0])))
    return [dataclasses.replace(spec, layout=name) for name in names]


def _stands_alone(character: str) -> bool:
    """Tell whether BERT's splitter makes a word of this character: punctuation, ASCII symbols, Chinese characters."""
    if unicodedata.category(character)[0] == "P" or (character.isascii() and not character.isalnum()):
        return True
    code = ord(character)
    return any(low <= code <= high for low, high in _CHINESE)


# The blocks that BERT's tokenizer surrounds with spaces (its `_is_chinese_char`).
_CHINESE = (
    (0x4E00, 0x9FFF),
    (0x3400, 0x4DBF),
    (0x20000, 0x2A6DF),
    (0x2A700, 0x2B73F),
    (0x2B740, 0x2B81F),
    (0x2B820, 0x2CEAF),
    (0xF900, 0xFAFF),
    (0x2F800, 0x2FA1F),
)


def _without_special_pieces(raw: tokenizers.Tokenizer, special: list[str]) -> tokenizers.Tokenizer:
    """Make special symbols so unlikely that the unigram model never picks one for the same letters in a text."""
    description = json.loads(raw.to_str())
    description["model"]["vocab"] = [
        [piece, -1000.0 if piece in special else score] for piece, score in description["model"]["vocab"]
    ]
    return tokenizers.Tokenizer.from_str(json.dumps(description, ensure_ascii=False))


def _with_last(raw: tokenizers.Tokenizer, *symbols: str, is_word: bool) -> tokenizers.Tokenizer:
    """Number special symbols after all others; those for words take the space before them along, as the words would."""
    description = json.loads(raw.to_str())
    vocab = description["model"]["vocab"]
    flags = {"single_word": False, "lstrip": is_word, "rstrip": False, "normalized": False, "special": True}
    for symbol in symbols:
        number = len(vocab)
        if isinstance(vocab, dict):
            vocab[symbol] = number
        else:
            vocab.append([symbol, -1000.0])
        description["added_tokens"].append({"id": number, "content": symbol, **flags})
    return tokenizers.Tokenizer.from_str(json.dumps(description, ensure_ascii=False))
