"""What a user may ask of the text that a model writes, and what that is in ids."""

import dataclasses
from collections.abc import Iterable
from typing import Literal

from elision.data.answers import Answers
from elision.data.frame import FRAMES
from elision.errors import InputError
from elision.model.encoder_decoder import EncoderDecoderModel
from elision.model.language_model import LanguageModel
from elision.text.tokenizer import Tokenizer


@dataclasses.dataclass(frozen=True)
class Decoding:
    """How a text is written, token by token.

    Without a temperature and with one beam the likeliest token is taken each time (greedy). A temperature draws; beams
    search for the likeliest text as a whole. What changes scores does so in this order: repetition penalty, n-grams, bad
    words, least length, first and last token; then temperature, top_k, top_p, min_p.
    """

    num_tokens: int = 64
    """at most so many new tokens; fewer when the text ends before"""
    min_tokens: int = 0
    """the text may not end before so many new tokens"""
    temperature: float = 0.0
    """0 = always the likeliest token; 1 = draw as the model says; below 1 more cautious, above 1 wilder"""
    top_k: int = 0
    """draw from the k likeliest tokens only; 0 = from all"""
    top_p: float = 1.0
    """draw from the fewest tokens that together have at least this probability, the one that crosses it included
    (Holtzman et al. 2020; GPT-2's released code leaves that one out); 1 = from all"""
    min_p: float = 0.0
    """draw from tokens that are at least this share as likely as the likeliest; 0 = from all"""
    seed: int | None = None
    """of the draws: a seed and a prompt give the same texts, alone or among others"""
    num_samples: int = 1
    """draw so many texts for each prompt"""
    num_texts: int | None = None
    """give back so many texts for each prompt, the likeliest first: of more samples (sample-and-rank, Meena) or of the
    beams; default: all samples, as drawn, or the best beam"""
    num_beams: int = 1
    """search with so many hypotheses at a time; 1 = no search"""
    length_penalty: float = 1.0
    """hypotheses are compared by log-likelihood / length ** length_penalty: above 0 longer texts win, the more the larger"""
    length_rule: Literal["power", "gnmt"] = "power"
    """gnmt: ((5 + length) / 6) instead of the length (Wu et al. 2016, equation 14; T5)"""
    early_stopping: Literal["likely", "full", "certain"] = "likely"
    """a search ends when no running hypothesis would be better if it ended now (likely), as soon as num_beams texts have
    ended (full), or when none can become better (certain)"""
    repetition_penalty: float = 1.0
    """above 1 makes tokens that are there already less likely, those of the prompt too (CTRL: 1.2)"""
    penalty_rule: Literal["sign", "divide"] = "sign"
    """sign: scores above 0 are divided by the penalty and others multiplied; divide: all are divided, as in CTRL's released
    code, which makes negative ones likelier"""
    penalty_exempt: tuple[str, ...] = ()
    """texts whose tokens are not penalised (CTRL: a line break)"""
    no_repeat_ngram: int = 0
    """never write n tokens that stand there already, in the prompt too; 0 = allow"""
    no_repeat_source_ngram: int = 0
    """never write n tokens that stand in what was read (BlenderBot: 3); 0 = allow"""
    bad_words: tuple[str, ...] = ()
    """texts that are never written, with or without a space before them"""
    stop: tuple[str, ...] = ()
    """the text ends before the first of these"""
    draft_tokens: int = 8
    """greedy texts written alone: guess so many tokens from what stands there already and check them in one reading; faster
    where text repeats itself, and the same text; 0 = off"""
    start: str | None = None
    """the symbol that a decoder reads first, where it is not the model's own: the language of a translation (mBART)"""
    first_token: str | None = None
    """the symbol that a text must begin with"""
    last_token: str | None = None
    """the symbol that a text ends with where num_tokens are used up"""

    def __post_init__(self) -> None:
        for name in ("num_tokens", "num_samples", "num_beams"):
            if getattr(self, name) < 1:
                raise InputError(f"{name} is {getattr(self, name)}: it must be at least 1")
        for name in ("min_tokens", "top_k", "no_repeat_ngram", "no_repeat_source_ngram", "draft_tokens"):
            if getattr(self, name) < 0:
                raise InputError(f"{name} is {getattr(self, name)}: give 0 (off) or a count")
        if self.min_tokens > self.num_tokens:
            raise InputError(f"min_tokens is {self.min_tokens}, more than num_tokens ({self.num_tokens}): lower it")
        if not 0 <= self.temperature < float("inf"):
            raise InputError(f"temperature is {self.temperature}: give 0 (greedy) or a positive number")
        if not 0 < self.top_p <= 1:
            raise InputError(f"top_p is {self.top_p}: give a probability above 0, up to 1")
        if not 0 <= self.min_p <= 1:
            raise InputError(f"min_p is {self.min_p}: give a share from 0 (off) to 1")
        if not 0 < self.repetition_penalty < float("inf"):
            raise InputError(f"repetition_penalty is {self.repetition_penalty}: give a positive number (1 = off)")
        if not abs(self.length_penalty) < float("inf"):
            raise InputError(f"length_penalty is {self.length_penalty}: give a number (0 = none)")
        if self.seed is not None and self.seed < 0:
            raise InputError(f"seed is {self.seed}: give a number from 0")
        if self.num_beams > 1 and (self.temperature > 0 or self.num_samples > 1):
            raise InputError(
                f"num_beams is {self.num_beams}, but temperature or num_samples is set: a search draws nothing. Set either"
            )
        if self.num_samples > 1 and self.temperature == 0:
            raise InputError(
                f"num_samples is {self.num_samples}, but temperature is 0, so that all would be equal: set a temperature"
            )
        most = max(self.num_samples, self.num_beams)
        if self.num_texts is not None and not 1 <= self.num_texts <= most:
            raise InputError(f"num_texts is {self.num_texts}: give 1 to {most}, or raise num_samples or num_beams")
        if "" in self.stop or "" in self.bad_words:
            raise InputError("an empty text in stop or bad_words would hold everywhere: leave it out")

    @property
    def num_given(self) -> int:
        """How many texts each prompt gets."""
        return self.num_texts or self.num_samples

    def normaliser(self, length: int) -> float:
        """Return what the log-likelihood of a text of `length` tokens is divided by in a search."""
        return float((5 + length) / 6 if self.length_rule == "gnmt" else length) ** self.length_penalty


@dataclasses.dataclass(frozen=True)
class Symbols:
    """What a model and a tokenizer make of a `Decoding`, in ids.

    limit: ids from here on are never written, rows that only fill the table up. ends: what ends a text. start: what a
    decoder reads first, None = nothing. first, last: forced tokens. bad: sequences that are never written. exempt: from the
    repetition penalty.
    """

    limit: int
    ends: tuple[int, ...] = ()
    start: int | None = None
    first: int | None = None
    last: int | None = None
    bad: tuple[tuple[int, ...], ...] = ()
    exempt: tuple[int, ...] = ()

    @staticmethod
    def of(decoding: Decoding, model: LanguageModel, tokenizer: Tokenizer) -> "Symbols":
        """Return the symbols. Raises: InputError when a named symbol is not one of the tokenizer's, or one is missing."""
        words, backbone = tokenizer.vocabulary, model.backbone
        ends = [] if words.eos is None else [words.eos]
        start = None
        if isinstance(backbone, EncoderDecoderModel):
            after = FRAMES[backbone.settings.frame].after
            ends += [words.require(role) for role in after[:1]]
            start = answers_of(model, tokenizer).start
            if start is None:
                start = words.require(after[-1]) if after else words.require("eos")
        elif reads_first(model):
            start = answers_of(model, tokenizer).start
        named = {
            name: symbol(tokenizer, getattr(decoding, name), name) for name in ("start", "first_token", "last_token")
        }
        # What Marian's decoder begins with is no text, yet its score may be the highest.
        begins_with_padding = getattr(backbone.settings, "start", None) == "zero"
        bad = [(words.require("pad"),)] if begins_with_padding else []
        spelled = {spelling for word in decoding.bad_words for spelling in _spellings(tokenizer, word)}
        return Symbols(
            limit=min(words.size, backbone.vocab_size),
            ends=tuple(dict.fromkeys(ends)),
            start=start if named["start"] is None else named["start"],
            first=named["first_token"],
            last=named["last_token"],
            bad=(*bad, *sorted(spelling for spelling in spelled if spelling)),
            exempt=tuple(sorted({token for text in decoding.penalty_exempt for token in tokenizer.encode(text)})),
        )


def answers_of(model: LanguageModel, tokenizer: Tokenizer) -> Answers:
    """Return how the model reads examples with an answer."""
    return model.backbone.settings.answers(tokenizer.vocabulary)


def reads_first(model: LanguageModel) -> bool:
    """Whether a decoder without an encoder was trained to read a text as a whole and then to write its answer."""
    objective = model.token_objective
    return (
        objective is not None and objective.needs == "sequence" and not isinstance(model.backbone, EncoderDecoderModel)
    )


def symbol(tokenizer: Tokenizer, written: str | None, name: str) -> int | None:
    """Return the id of one symbol as it is written. Raises: InputError when the tokenizer has none."""
    if written is None:
        return None
    found = tokenizer.raw.token_to_id(written)
    if found is None:
        raise InputError(f"{name} is {written!r}, which is no symbol of the tokenizer: {_special(tokenizer)}")
    return found


def _special(tokenizer: Tokenizer) -> str:
    vocabulary = tokenizer.vocabulary
    names = [text for text, special in zip(tokenizer.symbols(), vocabulary.special, strict=True) if special]
    return (
        f"its special ones are {', '.join(names[:12])}{' ...' if len(names) > 12 else ''}" if names else "it has none"
    )


def _spellings(tokenizer: Tokenizer, word: str) -> Iterable[tuple[int, ...]]:
    """Yield the ids of a word as a text begins with it and as it follows another."""
    yield tuple(tokenizer.encode(word))
    yield tuple(tokenizer.encode(" " + word))
