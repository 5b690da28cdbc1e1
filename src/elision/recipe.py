"""A recipe: tokenizer + segmenter + noise + backbone + objectives, and how they are optimised.

Recipes are frozen, refuse what does not fit together, and go to JSON and back without loss.
"""

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np

from elision.atomic import write_json
from elision.data.answers import Answers
from elision.data.mixing import LanguageMix
from elision.data.noise import Noise
from elision.data.segment import Plan, Segmenter
from elision.data.store import Split
from elision.data.turns import Turn
from elision.errors import InputError, nearest
from elision.model.backbones import Backbone
from elision.model.encoder_decoder import EncoderDecoder
from elision.objectives import AnyObjective
from elision.objectives.generator import Replacing
from elision.plain import from_plain, to_plain
from elision.text.tokenizer import TokenizerSpec
from elision.text.vocabulary import Vocabulary
from elision.train.settings import Train

# What the labels of pairs can say, and whose do.
QUESTIONS = {"next": "whether B follows A", "order": "whether A and B are in the order of the text"}
SEGMENTERS = {"next": "SentencePairs", "order": "SwappedPairs"}


@dataclasses.dataclass(frozen=True)
class Recipe:
    """Everything that defines a pretraining system."""

    name: str
    """what the run is called"""
    tokenizer: TokenizerSpec
    """which symbols; read by `elision prepare --recipe`, while training takes the store's own tokenizer"""
    segmenter: Segmenter
    """which stretch of which documents is one example"""
    noise: Noise
    """what is left out, and what stands in its place"""
    backbone: Backbone
    """who sees what while restoring it"""
    objectives: tuple[AnyObjective, ...]
    """what must be restored, and what a mistake costs"""
    train: Train
    """how it is optimised"""
    mixing: LanguageMix | None = None
    """how often each language is read, where documents declare theirs; None = as often as the text has it"""
    turns: tuple[Turn, ...] = ()
    """further kinds of batches, read in turn with the first: a step of each, with the same objectives (XLM)"""
    default_language: str | None = None
    """of text that does not say its language, in fine-tuning and after; None = the first of `languages`"""
    languages: tuple[str, ...] = ()
    """languages in the order of their embeddings; empty = those of the store in alphabetical order, noted when a run starts"""

    def __post_init__(self) -> None:
        """Refuse parts that do not fit together, saying why."""
        if not self.objectives:
            raise InputError("objectives is empty: a recipe needs at least one")
        self._check_lengths()
        self._check_answers()
        self._check_streams()
        if self.segmenter.num_types > self.backbone.num_types:
            raise InputError(
                f"backbone.num_types is {self.backbone.num_types}, but {type(self.segmenter).__name__} tells "
                f"{self.segmenter.num_types} segments apart: set backbone.num_types to {self.segmenter.num_types}"
            )
        if self.noise.lookahead and self.segmenter.num_labels:
            raise InputError(
                f"{type(self.noise).__name__} needs a segmenter that can hand over the next token; "
                f"{type(self.segmenter).__name__} cannot. Use Chunks"
            )
        self._check_order()
        for objective in self.objectives:
            what = type(objective).__name__
            needs = getattr(objective, "needs", None)
            if needs is not None and needs != self.noise.restores:
                raise InputError(
                    f"{what} restores {needs} tokens, but {type(self.noise).__name__} leaves out {self.noise.restores} "
                    f"ones: choose a noise that fits the objective"
                )
            if isinstance(objective, Replacing):
                self._check_generator(objective)
            if getattr(objective, "needs_spans", False):
                self._check_spans(objective)
            sees = getattr(objective, "visibility", None)
            if sees is not None and sees != self.backbone.visibility:
                because = (
                    "a token that sees its successors is not predicting them"
                    if sees == "causal"
                    else "a masked token is to be restored from both sides"
                )
                raise InputError(
                    f"{what} needs backbone.visibility {sees!r}, not {self.backbone.visibility!r}: {because}"
                )
            labels = getattr(objective, "num_labels", 0)
            if labels and self.segmenter.num_labels != labels:
                raise InputError(
                    f"{what} needs {labels} labels for each example, but {type(self.segmenter).__name__} gives "
                    f"{self.segmenter.num_labels or 'none'}: use {SEGMENTERS[objective.label]}, or leave the objective out"
                )
            if labels and self.segmenter.label != objective.label:
                raise InputError(
                    f"{what} asks {QUESTIONS[objective.label]}, but the labels of {type(self.segmenter).__name__} say "
                    f"{QUESTIONS[self.segmenter.label]}: use {SEGMENTERS[objective.label]}, or the other objective"
                )

        self._check_sight()
        self._check_languages()
        for turn in self.turns:
            self._check_turn(turn)

    def _check_lengths(self) -> None:
        """Refuse examples that are longer than the tables of positions."""
        (length, answer), room = self.kinds[0].lengths, self.backbone.max_length
        what = f"segmenter.max_length is {self.segmenter.max_length}"
        if answer is None:
            sides = ((length, room, "backbone.positions.num_positions"),)
        elif isinstance(self.backbone, EncoderDecoder):
            sides = (
                (length, room, "backbone.encoder.positions.num_positions"),
                (answer, self.backbone.decoder.max_length, "backbone.decoder.positions.num_positions"),
            )
            what += f" ({length} tokens to read and {answer} to write)"
        else:
            sides = ((length + answer, room, "backbone.positions.num_positions"),)
            what += f" ({length} tokens to read and {answer} to write, in one text)"
        for needed, there, name in sides:
            if there is not None and needed > there:
                raise InputError(
                    f"{what}, but {name} is {there}: an example would be longer than the position table. Lower the first or "
                    f"raise the second"
                )

    def _check_answers(self) -> None:
        """Refuse what is to be written beside what cannot write, and the other way round."""
        noise, backbone = type(self.noise).__name__, type(self.backbone).__name__
        writes = self.noise.restores == "sequence"
        if isinstance(self.backbone, EncoderDecoder) and not writes:
            raise InputError(
                f"{backbone} writes a text of its own, but {noise} leaves out {self.noise.restores} tokens at their places: use "
                f"a noise that leaves out a sequence (Denoising, SpanCorruption, GivenAnswer), or a Transformer"
            )
        if writes and not isinstance(self.backbone, EncoderDecoder):
            if getattr(self.backbone, "visibility", None) not in ("causal", "prefix") or not hasattr(
                self.backbone, "answers"
            ):
                raise InputError(
                    f"{noise} leaves out a sequence that is to be written, and {backbone} with visibility "
                    f"{self.backbone.visibility!r} does not write: use EncoderDecoder, or a Transformer with visibility "
                    f"'prefix' or 'causal'"
                )
            if getattr(self.noise, "sets_decoder", False):
                raise InputError(
                    f"{noise} says what the decoder reads at which positions, which one text cannot hold together with "
                    f"the inputs: use EncoderDecoder"
                )
        if not writes and self.backbone.visibility == "prefix":
            raise InputError(
                f"backbone.visibility is 'prefix', but {noise} has no inputs that would be a prefix: use a noise that leaves "
                f"out a sequence (SpanCorruption, TextToText), or set visibility to 'causal'"
            )
        needs, gives = getattr(self.noise, "needs_answers", False), getattr(self.segmenter, "gives_answers", False)
        if needs != gives:
            segmenter = type(self.segmenter).__name__
            raise InputError(
                f"{noise} takes the answers that come with the examples, and {segmenter} has none: use SourceTarget"
                if needs
                else f"{segmenter} gives examples with their answers, which {noise} would overwrite: use GivenAnswer"
            )

    def answers(self, vocabulary: Vocabulary, kind: Turn | None = None) -> Answers:
        """Return how the model reads examples that have something to be written; of a kind of batches, or the first."""
        _, answer = (kind or self.kinds[0]).lengths
        if answer is None:
            return Answers()
        return dataclasses.replace(self.backbone.answers(vocabulary), decoder_row_length=answer)

    def row_length(self, kind: Turn | None = None) -> int:
        """Return how many places a row of a packed batch has that are read; of a kind of batches, or the first."""
        length, answer = (kind or self.kinds[0]).lengths
        return length if answer is None or isinstance(self.backbone, EncoderDecoder) else length + answer

    def _check_sight(self) -> None:
        """Refuse a noise whose targets could be seen, or not be restored, whatever the objective."""
        noise, sees = type(self.noise).__name__, self.backbone.visibility
        if self.noise.restores == "next" and sees == "bidirectional":
            raise InputError(
                f"{noise} leaves out the future, which backbone.visibility {sees!r} shows: set it to 'causal' (a turn: "
                f"causal), or use a noise that masks"
            )
        if self.noise.restores == "masked" and sees == "causal":
            raise InputError(
                f"{noise} masks tokens that are to be restored from both sides, but backbone.visibility {sees!r} shows only "
                f"one: use NextToken, or set it to 'bidirectional'"
            )

    def _check_languages(self) -> None:
        """Refuse language embeddings that nothing chooses from, or that are too few."""
        num_languages = self.backbone.num_languages
        if num_languages < 2:
            return
        if self.mixing is None and not getattr(self.segmenter, "tells_languages", False):
            raise InputError(
                f"backbone.num_languages is {num_languages}, but nothing says which language a token of "
                f"{type(self.segmenter).__name__} is of: set mixing to a LanguageMix (alpha 1 reads the text as it is), or "
                f"num_languages to 0"
            )
        if len(self.languages) > num_languages:
            raise InputError(
                f"languages names {len(self.languages)} ({', '.join(self.languages)}), but backbone.num_languages is "
                f"{num_languages}: raise it"
            )

    def _check_turn(self, turn: Turn) -> None:
        """Refuse a turn that would not make a recipe by itself, or whose name is taken."""
        taken = [objective.name for objective in self.objectives] + [other.name for other in self.turns]
        if not turn.name or taken.count(turn.name) > 1:
            raise InputError(
                f"a turn is called {turn.name!r}: give every turn a name of its own that no objective has "
                f"({', '.join(sorted(set(taken)))} are taken)"
            )
        try:
            self.turned(turn.name)
        except InputError as error:
            raise InputError(f"turn {turn.name}: {error}") from None

    @property
    def kinds(self) -> tuple[Turn, ...]:
        """The kinds of batches that are read in turn; the first, which has no name, are those of the recipe itself."""
        return Turn("", self.segmenter, self.noise, mixing=self.mixing), *self.turns

    def turned(self, name: str) -> "Recipe":
        """Return the recipe that reads the batches of one turn alone.

        Raises: InputError when there is no such turn, or the parts do not fit together.
        """
        turn = next((turn for turn in self.turns if turn.name == name), None)
        if turn is None:
            there = ", ".join(turn.name for turn in self.turns) or "none"
            raise InputError(f"the recipe {self.name} has no turn {name!r}; it has: {there}")
        backbone = self.backbone
        if turn.causal:
            if "visibility" not in {field.name for field in dataclasses.fields(backbone)}:
                raise InputError(
                    f"{type(backbone).__name__} cannot be made to see only what precedes a token: drop causal"
                )
            backbone = dataclasses.replace(backbone, visibility="causal")
        return dataclasses.replace(
            self, segmenter=turn.segmenter, noise=turn.noise, mixing=turn.mixing, backbone=backbone, turns=()
        )

    def _check_generator(self, objective: Replacing) -> None:
        """Refuse another objective that reads the tokens that were left out where a generator has filled them in."""
        objective.check(self.backbone)
        others = [each for each in self.objectives if each is not objective and getattr(each, "needs", None)]
        if others:
            what, other = type(objective).__name__, type(others[0]).__name__
            raise InputError(
                f"{other} cannot stand beside {what}, whose generator fills in the tokens that were left out: {other} "
                f"would read its samples where it expects the noise. Leave one of them out"
            )

    def _check_streams(self) -> None:
        """Refuse parts that read one stream forward and another backward beside parts that know of no such thing."""
        parts = (self.segmenter, self.noise, self.backbone, *self.objectives)
        ours = [type(part).__name__ for part in parts if getattr(part, "two_streams", False)]
        others = [type(part).__name__ for part in parts if not getattr(part, "two_streams", False)]
        if ours and others:
            raise InputError(
                f"{ours[0]} works on two streams of text, read in opposite directions, and {others[0]} does not: "
                f"TokenStreams, Neighbours, Elmo and BidirectionalLM only go together"
            )

    def _check_order(self) -> None:
        """Refuse an order that the backbone cannot read by, and a memory of what did not come right before."""
        noise, segmenter, backbone = self.noise, self.segmenter, self.backbone
        if noise.restores == "permuted" and not getattr(backbone, "permutes", False):
            raise InputError(
                f"{type(noise).__name__} hides nothing but by the order in which tokens are read, and "
                f"{type(backbone).__name__} has no second stream for tokens that may not see themselves: use XLNet"
            )
        memory = getattr(backbone, "memory_length", 0)
        if not memory:
            return
        if not getattr(segmenter, "contiguous", False):
            raise InputError(
                f"backbone.memory_length is {memory}, but the examples of {type(segmenter).__name__} do not go on one "
                f"from another, so there is nothing to remember: set it to 0, or use Streams (MemoryStreams for XLNet)"
            )
        if backbone.reuse_length != segmenter.reuse_length:
            raise InputError(
                f"backbone.reuse_length is {backbone.reuse_length}, but the next example begins after "
                f"segmenter.reuse_length {segmenter.reuse_length} tokens: set both to the same"
            )
        if (
            noise.restores == "permuted"
            and segmenter.reuse_length is not None
            and segmenter.reuse_length % noise.permute_length
        ):
            raise InputError(
                f"segmenter.reuse_length is {segmenter.reuse_length}: it must be a multiple of noise.permute_length "
                f"{noise.permute_length}, or the memory would hold tokens that have seen what comes after it"
            )

    def _check_spans(self, objective: AnyObjective) -> None:
        """Refuse an objective over spans beside a noise that leaves none out, or more of each than it can tell apart."""
        what, noise = type(objective).__name__, type(self.noise).__name__
        if not getattr(self.noise, "gives_spans", False):
            raise InputError(
                f"{what} restores spans from the tokens at their boundaries, but {noise} does not say where spans are: "
                f"use SpanMask, or leave the objective out"
            )
        if self.noise.max_restored > objective.num_offsets:
            raise InputError(
                f"noise.max_restored is {self.noise.max_restored}, but {what} has vectors for {objective.num_offsets} "
                f"offsets in a span: lower the first or raise the objective's num_offsets"
            )

    def plan(self, split: Split, vocabulary: Vocabulary, seed: int | None = None) -> Plan:
        """Return the examples that the segmenter makes of a split, mixed by language where `mixing` says so."""
        return self.kinds[0].plan(split, vocabulary, self.train.seed if seed is None else seed)

    def language_numbers(self, split: Split) -> np.ndarray | None:
        """Return the row of the language embeddings for each of `split.languages`; None where there are none.

        Raises: InputError when a language or the language of a document is not known.
        """
        if self.backbone.num_languages < 2:
            return None
        names = self.languages or tuple(split.languages)
        unknown = [language for language in split.languages if language not in names]
        if unknown:
            raise InputError(
                f"the store {split.store.path} has text in {', '.join(unknown)}, which is none of the model's languages "
                f"({', '.join(names)}): add it to languages (and pretrain anew), or prepare a store without it"
            )
        if len(names) > self.backbone.num_languages:
            raise InputError(
                f"the store {split.store.path} has {len(names)} languages ({', '.join(names)}), but backbone.num_languages "
                f"is {self.backbone.num_languages}: raise it"
            )
        num_nameless = int((split.language_codes < 0).sum())
        if num_nameless:
            raise InputError(
                f"{num_nameless:,} documents of the store {split.store.path} ({split.name}) do not declare their language, "
                f"which a model with language embeddings must know: prepare it with LANGUAGE=FILE inputs or "
                f"--reading.language-field, or set backbone.num_languages to 0"
            )
        return np.array([names.index(language) for language in split.languages])

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values; parts that have alternatives carry their class name as "type"."""
        return to_plain(self)

    @staticmethod
    def from_dict(values: dict[str, Any]) -> "Recipe":
        """Build a recipe from plain values. Raises: InputError naming the first unknown, missing or wrong field."""
        return from_plain(Recipe, values, "recipe")

    def override(self, changes: dict[str, Any]) -> "Recipe":
        """Return the recipe with fields changed by dotted name, as the command line does: {"train.steps": 2000}.

        Raises: InputError naming an unknown field (and the nearest known one) or a value that does not fit.
        """
        values = self.to_dict()
        for name, value in changes.items():
            *parents, last = name.replace("-", "_").split(".")
            place: Any = values
            for depth, part in enumerate([*parents, last]):
                index = int(part) if isinstance(place, list) and part.isdigit() and int(part) < len(place) else part
                known = place if isinstance(place, dict) else range(len(place)) if isinstance(place, list) else ()
                if index not in known:
                    hint = nearest(part, known) if isinstance(place, dict) else ""
                    raise InputError(f"the recipe {self.name} has no field {name!r}.{hint}")
                if depth == len(parents):
                    place[index] = to_plain(value)
                else:
                    place = place[index]
        return Recipe.from_dict(values)

    def save(self, path: Path) -> None:
        """Write the recipe as JSON."""
        write_json(path, self.to_dict())

    @staticmethod
    def load(path: Path) -> "Recipe":
        """Read a recipe from JSON. Raises: InputError when the file is none."""
        try:
            values = json.loads(Path(path).read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise InputError(f"there is no recipe at {path}") from None
        except (json.JSONDecodeError, UnicodeDecodeError) as error:
            raise InputError(f"{path} is not a recipe: it is not JSON ({error})") from None
        if not isinstance(values, dict):
            raise InputError(f"{path} is not a recipe: expected a JSON object")
        return Recipe.from_dict(values)
