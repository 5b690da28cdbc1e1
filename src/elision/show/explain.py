"""What a recipe does to an example, as plain data that a terminal or a page can draw.

Everything is read off what the training itself uses: the example before and after the noise, the collated batch, the
visibility of the backbone. Nothing here knows any recipe.

T places in the row that is shown; where there are an encoder and a decoder, those of the encoder's row before those of the
decoder's.
"""

import dataclasses
import difflib
from collections.abc import Callable, Sequence
from typing import Literal

import numpy as np
import torch

from elision.data.batch import Batch, collate
from elision.data.example import NO_TARGET, Example
from elision.model.backbones import Backbone
from elision.model.encoder_decoder import EncoderDecoder
from elision.model.visibility import Visible
from elision.recipe import Recipe
from elision.show.answers import joined_tokens, read_tokens, written_tokens
from elision.show.parts import Part, paragraphs, parts_of
from elision.show.token import Fate, Token
from elision.show.trace import Trace
from elision.show.words import sentences_of
from elision.text.tokenizer import Tokenizer
from elision.text.vocabulary import Vocabulary


@dataclasses.dataclass(frozen=True)
class Side:
    """One row of an explanation: its name ("" where there is only one), and which of the tokens are in it."""

    name: Literal["", "reads", "writes"]
    begin: int
    end: int


@dataclasses.dataclass(frozen=True, eq=False)
class Explanation:
    """All there is to show of one row of examples. `visible` bool [T, T]: row looks, column is seen."""

    recipe: str
    paper: str
    idea: str
    parts: tuple[Part, ...]
    tokens: tuple[Token, ...]
    visible: np.ndarray
    restores: Literal["itself", "next", "other"]
    """which token a target is: the one that stood at its place, the one after that, or some other"""
    labels: tuple[str, ...]
    """what is to be said of each example as a whole, in words; empty when nothing is"""
    sentences: tuple[str, ...]
    """what happened, counted, in plain words"""
    notes: tuple[str, ...] = ()
    """where the example and the tokenizer come from"""
    leaves_out: str = ""
    """what the noise leaves out, as it calls it: "masked", "next", "permuted" tokens ..."""

    @property
    def sides(self) -> tuple[Side, ...]:
        """The rows: one, or what an encoder reads and what a decoder writes."""
        num_read = sum(token.side == "reads" for token in self.tokens)
        if not num_read:
            return (Side("", 0, len(self.tokens)),)
        return Side("reads", 0, num_read), Side("writes", num_read, len(self.tokens))

    @property
    def num_targets(self) -> int:
        """How many places have something to be restored."""
        return sum(token.target is not None for token in self.tokens)

    @property
    def num_documents(self) -> int:
        """How many documents there are that do not see each other."""
        return len({token.document for token in self.tokens})

    @property
    def num_examples(self) -> int:
        """How many examples share the row."""
        return len({token.example for token in self.tokens})

    @property
    def has_segments(self) -> bool:
        """Whether the examples tell segments apart."""
        return any(token.segment is not None for token in self.tokens)

    @property
    def has_languages(self) -> bool:
        """Whether the examples tell languages apart."""
        return any(token.language is not None for token in self.tokens)

    @property
    def has_order(self) -> bool:
        """Whether the tokens are restored in an order of their own."""
        return any(token.order is not None for token in self.tokens)

    @property
    def has_samples(self) -> bool:
        """Whether a generator fills places in."""
        return any(token.sampled is not None for token in self.tokens)

    @property
    def has_predictions(self) -> bool:
        """Whether a model was asked what it would say."""
        return any(token.predicted is not None for token in self.tokens)

    @property
    def changes_elsewhere(self) -> bool:
        """Whether some change cannot be read off the targets: what stood there is not what must be said there."""
        return any(
            token.dropped or (token.original != (token.piece,) and token.original != (token.target,))
            for token in self.tokens
        )

    @property
    def read(self) -> tuple[Token, ...]:
        """The places that the noise had to do with: all but those of a decoder beside an encoder."""
        return tuple(token for token in self.tokens if token.side != "writes")

    def count(self, fate: Fate) -> int:
        """How many of the tokens that are read met this fate."""
        return sum(token.fate is fate for token in self.read)


def explain(
    recipe: Recipe,
    before: Sequence[Example],
    after: Sequence[Example],
    tokenizer: Tokenizer,
    notes: Sequence[str] = (),
    rewrite: Callable[[Batch], Batch] | None = None,
    traces: Sequence[Trace | None] = (),
    predict: Callable[[Batch], np.ndarray] | None = None,
) -> Explanation:
    """Explain examples, given as they were before and after the noise of `recipe`, packed into one row.

    rewrite: what the objectives do to the batch before the model reads it (a generator's samples). traces: of examples
    that have something to be written, where their tokens come from. predict: what a model says at the places with a
    target, ids in the order of `target_at`.
    """
    pad_id = tokenizer.vocabulary.pad or 0
    writes = after[0].decoder_inputs is not None
    batch = collate(
        after,
        pad_id=pad_id,
        row_length=sum(map(len, after)),
        decoder_row_length=sum(len(example.decoder_inputs) for example in after) if writes else None,
        packing=True,
    )
    if recipe.backbone.num_languages < 2:
        # Examples may say their language where nobody asks (XLM-R).
        batch = dataclasses.replace(batch, languages=None, decoder_languages=None)
    found: tuple[list[Token], list[Token]] = ([], [])
    for number, index in enumerate(batch.examples):
        trace = traces[index] if traces else None
        if writes:
            found[0].extend(read_tokens(batch, len(found[0]), number, before[index], after[index], tokenizer, trace))
            found[1].extend(written_tokens(batch, len(found[1]), number, after[index], tokenizer, trace))
        elif after[index].prefix is not None:
            found[1].extend(joined_tokens(batch, len(found[1]), number, before[index], after[index], tokenizer, trace))
        else:
            found[1].extend(_tokens(batch, len(found[1]), number, before[index], after[index], tokenizer))
    read, tokens = found
    if rewrite is not None:
        tokens = _with_samples(tokens, batch, rewrite(batch), tokenizer)
    if predict is not None:
        tokens = _with_predictions(tokens, batch, predict(batch), tokenizer)
    about = [*paragraphs(recipe.name), "", ""]
    explanation = Explanation(
        recipe=recipe.name,
        paper=about[0],
        idea=about[1],
        parts=tuple(parts_of(recipe)),
        tokens=tuple(read + tokens),
        visible=who_sees_whom(recipe.backbone, batch),
        restores=_which_token(before, after),
        leaves_out=recipe.noise.restores,
        labels=tuple(_labels(recipe, [after[index] for index in batch.examples])),
        sentences=(),
        notes=tuple(notes),
    )
    return dataclasses.replace(explanation, sentences=sentences_of(explanation, recipe.objectives))


def _which_token(before: Sequence[Example], after: Sequence[Example]) -> Literal["itself", "next", "other"]:
    if after[0].decoder_inputs is not None or after[0].prefix is not None:
        return "next"
    for what, shift in (("itself", 0), ("next", 1)):
        if all(_restores(*pair, shift=shift) for pair in zip(before, after)):
            return what
    return "other"


def who_sees_whom(backbone: Backbone, batch: Batch) -> np.ndarray:
    """Return bool [T, T] for the first row of `batch`: entry (i, j) says whether place i may look at place j.

    Where layers look back differently far, those that look least far.
    """
    length = batch.inputs.shape[1]
    if isinstance(backbone, EncoderDecoder):
        num_written = batch.decoder_inputs.shape[1]
        return np.block(
            [
                [_matrix(backbone.encoder.visible(batch), length, length), np.zeros((length, num_written), bool)],
                [
                    _matrix(backbone.source_visible(batch), num_written, length),
                    _matrix(backbone.visible(batch), num_written, num_written),
                ],
            ]
        )
    windows = [window for window in getattr(backbone, "windows", ()) if window is not None]
    seen = _matrix(backbone.visible(batch) & Visible(window=min(windows, default=None)), length, length)
    if getattr(backbone, "permutes", False) and batch.order is not None:
        # A place that is to be restored looks from a query, which does not see what stands there.
        asked = batch.target_at[batch.target_at < length].numpy()
        seen[asked, asked] = False
    return seen


def _matrix(visible: Visible, num_looking: int, num_seen: int) -> np.ndarray:
    """Return bool [looking, seen] for the first row."""
    mask = visible.matrix(num_looking, num_seen, torch.device("cpu"))
    if mask is None:
        return np.ones((num_looking, num_seen), bool)
    return mask[0, 0].expand(num_looking, num_seen).numpy().copy()


def label_in_words(recipe: Recipe, label: int | float) -> str:
    """Return what the label of an example says."""
    meanings = recipe.segmenter.label_meanings
    if meanings:
        return f"{meanings[int(label)]} (label {label})."
    return f"The label of the whole is {label}."


def fates(before: Example, after: Example, vocabulary: Vocabulary) -> list[Fate]:
    """Return the fate of each token of `after`, found by comparing it with the example before the noise."""
    in_place = _restores(before, after, shift=0)
    found = []
    for place, (begin, end) in enumerate(_origins(before, after)[0]):
        read = int(after.inputs[place])
        target = NO_TARGET if after.targets is None else int(after.targets[place])
        if before.inputs[begin:end].tolist() != [read]:
            found.append(Fate.MASKED if read == vocabulary.mask else Fate.REPLACED)
        else:
            found.append(Fate.KEPT if in_place and target != NO_TARGET else Fate.UNTOUCHED)
    return found


def _tokens(
    batch: Batch, offset: int, number: int, before: Example, after: Example, tokenizer: Tokenizer
) -> list[Token]:
    """Return the places of one example, which begin at `offset` of the row."""
    vocabulary = tokenizer.vocabulary
    row = slice(offset, offset + len(after))
    inputs, targets = batch.inputs[0, row].tolist(), batch.targets[0, row].tolist()
    segments = [None] * len(after) if batch.type_ids is None else batch.type_ids[0, row].tolist()
    orders = [None] * len(after) if batch.order is None else batch.order[0, row].tolist()
    languages = [None] * len(after) if batch.languages is None else batch.languages[0, row].tolist()
    origins, dropped = _origins(before, after)
    tokens = []
    for place, fate in enumerate(fates(before, after, vocabulary)):
        begin, end = origins[place]
        tokens.append(
            Token(
                piece=tokenizer.tokens([inputs[place]])[0],
                original=tuple(tokenizer.tokens(before.inputs[begin:end])),
                dropped=tuple(tokenizer.tokens(before.inputs[slice(*dropped[place])])),
                target=None if targets[place] == NO_TARGET else tokenizer.tokens([targets[place]])[0],
                fate=fate,
                special=bool(after.special[place] or (fate is Fate.UNTOUCHED and vocabulary.special[inputs[place]])),
                position=int(batch.positions[0, offset + place]),
                document=int(batch.doc_ids[0, offset + place]),
                example=number,
                segment=segments[place],
                language=languages[place],
                order=orders[place],
            )
        )
    return tokens


def _with_samples(tokens: list[Token], batch: Batch, rewritten: Batch, tokenizer: Tokenizer) -> list[Token]:
    """Note what stands in each place with a target once the objectives have rewritten the batch."""
    asked = set(batch.target_at.tolist())
    pieces = tokenizer.tokens(rewritten.inputs.flatten().tolist())
    return [
        dataclasses.replace(token, sampled=pieces[place]) if place in asked else token
        for place, token in enumerate(tokens)
    ]


def _with_predictions(tokens: list[Token], batch: Batch, ids: np.ndarray, tokenizer: Tokenizer) -> list[Token]:
    """Note what a model says in each place with a target."""
    said = dict(zip(batch.target_at.tolist(), tokenizer.tokens(ids), strict=True))
    return [dataclasses.replace(token, predicted=said.get(place)) for place, token in enumerate(tokens)]


def _restores(before: Example, after: Example, shift: int) -> bool:
    """Tell whether every target is the token `shift` places on in the text."""
    if after.targets is None:
        return False
    asked = np.flatnonzero(after.targets != NO_TARGET)
    if shift == 0 and len(before) != len(after):
        return False
    inside = asked + shift < len(before)
    return bool(inside.all() and (after.targets[asked] == before.inputs[asked + shift]).all())


def _labels(recipe: Recipe, examples: Sequence[Example]) -> list[str]:
    said = [label_in_words(recipe, example.label) for example in examples if example.label is not None]
    return said if len(examples) == 1 else [f"Document {number}: {words}" for number, words in enumerate(said, 1)]


def _origins(before: Example, after: Example) -> tuple[list[tuple[int, int]], list[tuple[int, int]]]:
    """Return, for each place of `after`, which places of `before` it stands for and which vanished just before it."""
    nothing = (0, 0)
    if len(before) == len(after):
        return [(i, i + 1) for i in range(len(after))], [nothing] * len(after)
    origins, dropped = [nothing] * len(after), [nothing] * len(after)
    matcher = difflib.SequenceMatcher(None, before.inputs.tolist(), after.inputs.tolist(), autojunk=False)
    for what, begin, end, first, last in matcher.get_opcodes():
        if what == "delete" and first < len(after):
            dropped[first] = (begin, end)
        for place in range(first, last):
            # The last place of a stretch stands for all that is left of what it replaces.
            stop = end if place == last - 1 else min(begin + place - first + 1, end)
            origins[place] = (min(begin + place - first, end), stop)
    return origins, dropped
