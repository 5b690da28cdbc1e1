"""What a recipe does to an example, as plain data that a terminal or a page can draw.

Everything is read off what the training itself uses: the example before and after the noise, the collated batch, the
visibility of the backbone. Nothing here knows any recipe.

T places in the row that is shown.
"""

import dataclasses
import difflib
import enum
from collections.abc import Callable, Sequence
from typing import Literal

import numpy as np
import torch

from elision.data.batch import Batch, collate
from elision.data.example import NO_TARGET, Example
from elision.model.backbones import Backbone
from elision.model.visibility import causal_mask
from elision.objectives import Objective
from elision.objectives.token_prediction import TokenPrediction
from elision.recipe import Recipe
from elision.show.parts import Part, paragraphs, parts_of, summary
from elision.text.tokenizer import Tokenizer
from elision.text.vocabulary import Vocabulary


class Fate(enum.Enum):
    """What the noise did to a token."""

    UNTOUCHED = "untouched"
    MASKED = "mask"
    REPLACED = "random"
    KEPT = "kept"

    @property
    def meaning(self) -> str:
        """What the word stands for."""
        return {
            Fate.UNTOUCHED: "as it stood in the text",
            Fate.MASKED: "left out, a mask stands in its place",
            Fate.REPLACED: "left out, another token stands in its place",
            Fate.KEPT: "as it stood in the text, and still to be predicted",
        }[self]


@dataclasses.dataclass(frozen=True)
class Token:
    """One place of the row: what the model reads there, what stood there, what it must say there."""

    piece: str
    original: tuple[str, ...]
    """the pieces that stood here before the noise: one, several when a span was joined, none when it was inserted"""
    dropped: tuple[str, ...]
    """the pieces before this place that the noise removed without a trace"""
    target: str | None
    fate: Fate
    special: bool
    position: int
    document: int
    example: int
    segment: int | None
    language: int | None = None
    order: int | None = None
    """its place in a permutation: it sees what has no higher one"""
    sampled: str | None = None
    """what a generator puts in this place before the model reads it"""


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
    def changes_elsewhere(self) -> bool:
        """Whether some change cannot be read off the targets: what stood there is not what must be said there."""
        return any(
            token.dropped or (token.original != (token.piece,) and token.original != (token.target,))
            for token in self.tokens
        )

    def count(self, fate: Fate) -> int:
        """How many tokens met this fate."""
        return sum(token.fate is fate for token in self.tokens)


def explain(
    recipe: Recipe,
    before: Sequence[Example],
    after: Sequence[Example],
    tokenizer: Tokenizer,
    notes: Sequence[str] = (),
    rewrite: Callable[[Batch], Batch] | None = None,
) -> Explanation:
    """Explain examples, given as they were before and after the noise of `recipe`, packed into one row.

    rewrite: what the objectives do to the batch before the model reads it (a generator's samples).
    """
    pad_id = tokenizer.vocabulary.pad or 0
    batch = collate(after, pad_id=pad_id, row_length=sum(map(len, after)), packing=True)
    if recipe.backbone.num_languages < 2:
        # Examples may say their language where nobody asks (XLM-R).
        batch = dataclasses.replace(batch, languages=None)
    tokens: list[Token] = []
    for number, index in enumerate(batch.examples):
        tokens += _tokens(batch, len(tokens), number, before[index], after[index], tokenizer)
    if rewrite is not None:
        tokens = _with_samples(tokens, batch, rewrite(batch), tokenizer)
    if all(_restores(*pair, shift=0) for pair in zip(before, after)):
        restores = "itself"
    else:
        restores = "next" if all(_restores(*pair, shift=1) for pair in zip(before, after)) else "other"
    about = [*paragraphs(recipe.name), "", ""]
    explanation = Explanation(
        recipe=recipe.name,
        paper=about[0],
        idea=about[1],
        parts=tuple(parts_of(recipe)),
        tokens=tuple(tokens),
        visible=who_sees_whom(recipe.backbone, batch),
        restores=restores,
        leaves_out=recipe.noise.restores,
        labels=tuple(_labels(recipe, [after[index] for index in batch.examples])),
        sentences=(),
        notes=tuple(notes),
    )
    others = [
        summary(type(each))
        for each in recipe.objectives
        if type(each).before is not Objective.before or not isinstance(each, TokenPrediction)
    ]
    said = [_what_is_asked(explanation), _what_is_sampled(explanation), *others, _what_is_seen(explanation)]
    return dataclasses.replace(explanation, sentences=tuple(filter(None, said)))


def who_sees_whom(backbone: Backbone, batch: Batch) -> np.ndarray:
    """Return bool [T, T] for the first row of `batch`: entry (i, j) says whether place i may look at place j."""
    visible = backbone.visible(batch)
    length = batch.inputs.shape[1]
    mask = torch.ones(1, 1, length, length, dtype=torch.bool) if visible.mask is None else visible.mask
    if visible.causal:
        mask = mask & causal_mask(length, length, mask.device)
    seen = mask[0, 0].clone()
    if getattr(backbone, "permutes", False) and batch.order is not None:
        # A place that is to be restored looks from a query, which does not see what stands there.
        asked = batch.target_at[batch.target_at < length]
        seen[asked, asked] = False
    return seen.numpy()


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


def _what_is_asked(shown: Explanation) -> str:
    total, asked = len(shown.tokens), shown.num_targets
    if not asked:
        return f"None of the {total} tokens is to be restored."
    some = f"Each of the {total:,} tokens" if asked == total else f"{asked:,} of {total:,} tokens ({asked / total:.0%})"
    if shown.leaves_out == "neighbouring":
        return (
            f"{some} must predict a neighbour: in the first half, which is read forward, the next one; in the second, "
            f"which is read backward, the one before. The two halves are windows of streams of their own."
        )
    if shown.leaves_out == "permuted":
        return (
            f"{some} are to be restored, one by one in a random order: each from the tokens that are given and from those "
            f"before it in the order, knowing where it stands but not what stands there. Nothing is masked."
        )
    if shown.restores == "next":
        return f"{some} must predict the next one. Nothing but the future is left out."
    if shown.restores == "other":
        return f"{some} must produce another one."
    fate = [
        (shown.count(Fate.MASKED), "hidden by a mask"),
        (shown.count(Fate.REPLACED), "replaced by a random token"),
        (shown.count(Fate.KEPT), "left in place, but asked for all the same"),
    ]
    pieces = [f"{number} {what}" for number, what in fate if number]
    verb = "is" if asked == 1 else "are"
    return f"{some} {verb} to be restored: {', '.join(pieces)}."


def _what_is_sampled(shown: Explanation) -> str:
    sampled = [token for token in shown.tokens if token.sampled is not None]
    if not sampled:
        return ""
    right = sum(token.sampled == token.target for token in sampled)
    return (
        f"A generator fills the {len(sampled)} places before the model reads them: {right} with the very token that "
        f"stood there, {len(sampled) - right} with another one."
    )


def _what_is_seen(shown: Explanation) -> str:
    documents = np.array([token.document for token in shown.tokens])
    whole = documents[:, None] == documents[None, :]
    alone = "" if shown.num_documents == 1 else f" The {shown.num_documents} documents do not see each other."
    if (shown.visible == whole).all():
        return f"Each place sees its whole document, what precedes and what follows.{alone}"
    if (shown.visible == np.tril(whole)).all():
        return f"Each place sees itself and what precedes it, never what follows.{alone}"
    seen = shown.visible.sum(1)
    return (
        f"A place sees between {seen.min()} and {seen.max()} of the {len(seen)} places, {seen.mean():.1f} on average."
    )
