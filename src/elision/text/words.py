"""Whole words as symbols: the tokenizer of models that read the characters of a word, such as ELMo."""

import dataclasses
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import tokenizers
from tokenizers import models, normalizers, pre_tokenizers, processors, trainers

from elision.errors import InputError
from elision.text.trained import Tokenizer

if TYPE_CHECKING:
    from elision.model.backbone import BackboneModel

SPECIAL = ("<S>", "</S>", "<UNK>")
"""The first three ids, as in the vocabulary files of bilm."""
UNKNOWN = SPECIAL.index("<UNK>")


@dataclasses.dataclass(frozen=True)
class Words:
    """ELMo's tokenizer: words and punctuation marks as they stand, numbered from the most frequent down.

    Special symbols: <S> and </S> around a sentence, <UNK> for words that were never seen, with ids 0 to 2. Text is split
    at white space and around punctuation; each Chinese character is a word. Scripts that write no spaces (Thai,
    Japanese kana) give whole stretches as words: split such text with spaces first.

    The lexicon may hold more words than the model learns to predict (`num_targets` of its objective): all are read
    letter by letter.
    """

    vocab_size: int = 793471
    """Number of words that get an id, special symbols included."""
    min_frequency: int = 1
    """How often a word must occur to get an id."""
    lowercase: bool = False
    """Fold upper case into lower case."""

    @property
    def roles(self) -> dict[str, str]:
        """Which symbol plays which role."""
        return dict(zip(("bos", "eos", "unk"), SPECIAL))

    def train(self, texts: Iterable[str]) -> Tokenizer:
        """Count the words of `texts`, which are held in memory meanwhile.

        Raises: InputError when `texts` is empty or `vocab_size` has no room for words.
        """
        if self.vocab_size <= len(SPECIAL):
            raise InputError(
                f"vocab_size = {self.vocab_size} cannot hold {len(SPECIAL)} special tokens and words: raise --vocab-size."
            )
        texts = list(texts)
        if not any(text and not text.isspace() for text in texts):
            raise InputError("There is no text to train a tokenizer on: every document is empty.")
        raw = word_splitter(self.lowercase)
        # It numbers words by falling frequency, which the log-uniform sampler of the objective counts on; ties by letter.
        trainer = trainers.WordLevelTrainer(
            vocab_size=self.vocab_size,
            min_frequency=self.min_frequency,
            special_tokens=list(SPECIAL),
            show_progress=False,
        )
        raw.train_from_iterator(texts, trainer, length=len(texts))
        return with_words(raw, raw.get_vocab())


def word_splitter(lowercase: bool = False) -> tokenizers.Tokenizer:
    """Return a tokenizer that splits text into words and knows none."""
    raw = tokenizers.Tokenizer(models.WordLevel(unk_token="<UNK>"))
    raw.normalizer = normalizers.BertNormalizer(
        clean_text=True, handle_chinese_chars=True, strip_accents=False, lowercase=lowercase
    )
    raw.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    return raw


def with_words(like: tokenizers.Tokenizer, ids: dict[str, int]) -> Tokenizer:
    """Return the tokenizer that splits text as `like` does and has these ids."""
    raw = tokenizers.Tokenizer(models.WordLevel(ids, unk_token="<UNK>"))
    raw.normalizer, raw.pre_tokenizer = like.normalizer, like.pre_tokenizer
    raw.add_special_tokens(list(SPECIAL))
    raw.post_processor = processors.TemplateProcessing(
        single="<S> $A </S>",
        pair="<S> $A </S> <S> $B </S>",
        special_tokens=[(symbol, ids[symbol]) for symbol in SPECIAL[:2]],
    )
    return Tokenizer(raw, dict(zip(("bos", "eos", "unk"), SPECIAL)))


def split(tokenizer: Tokenizer, text: str) -> list[str]:
    """Return the words of a text as the tokenizer splits it, known or not."""
    raw = tokenizer.raw
    written = raw.normalizer.normalize_str(text) if raw.normalizer is not None else text
    return [word for word, _ in raw.pre_tokenizer.pre_tokenize_str(written)]


def unseen_words(tokenizer: Tokenizer, texts: Iterable[str]) -> list[str]:
    """Return the words of `texts` that have no id, each once, in the order of their first appearance."""
    known = tokenizer.raw.token_to_id
    words = dict.fromkeys(word for text in texts for word in split(tokenizer, text))
    return [word for word in words if known(word) is None]


def read_new_words(backbone: "BackboneModel", tokenizer: Tokenizer, texts: Iterable[str]) -> Tokenizer:
    """Return a tokenizer that knows all words of `texts`; a backbone that reads letters learns how the new ones are written.

    For other backbones it is the tokenizer as it was: they read any text with the symbols that they have.
    """
    if not hasattr(backbone, "read_more_symbols"):
        return tokenizer
    new = unseen_words(tokenizer, texts)
    if not new:
        return tokenizer
    backbone.read_more_symbols(new)
    return with_more_words(tokenizer, new)


def with_more_words(tokenizer: Tokenizer, words: Sequence[str]) -> Tokenizer:
    """Return the tokenizer with more words, which get the ids that follow."""
    ids = tokenizer.raw.get_vocab()
    return with_words(tokenizer.raw, ids | {word: len(ids) + number for number, word in enumerate(words)})
