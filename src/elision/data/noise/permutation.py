"""XLNet's noise: nothing is masked; an order says what each token may see, and which are to be restored."""

import dataclasses
import math
from typing import ClassVar

import numpy as np

from elision.data.example import NO_TARGET, Example
from elision.data.noise.settings import check_share
from elision.errors import InputError
from elision.text.vocabulary import Vocabulary


def pick_spans(
    starts_word: np.ndarray, num_picked: int, max_span: int, context: int, whole_words: bool, rng: np.random.Generator
) -> np.ndarray:
    """Draw `num_picked` positions of a stretch in spans of 1 to `max_span` tokens; bool [n].

    starts_word: bool [n], True where a word (or a symbol) begins. From left to right: a length l is drawn with
    probability in proportion to 1 / l, and a context of l * `context` tokens, in which the span begins at a random
    place, moved on to the next word start. It takes l tokens, or with `whole_words` l whole words. A span that would
    reach the end of the stretch ends the walk; what then lacks is drawn among the single tokens that are left.

    A worked example: with word starts at 0, 2, 3 and 6 of 8 tokens, a length of 2 drawn with 5 tokens of the context
    on its left begins at 6 and would end at 8, the end: the walk ends.
    """
    size = len(starts_word)
    picked = np.zeros(size, bool)
    num_picked = min(num_picked, size)
    left = num_picked
    starts = np.flatnonzero(starts_word)
    lengths = np.arange(1, max_span + 1)
    share = 1 / lengths / (1 / lengths).sum()
    drawn, shifts = rng.choice(lengths, num_picked, p=share), rng.random(num_picked)
    at = 0
    for length, shift in zip(drawn.tolist(), shifts.tolist()):
        if left == 0 or at >= size:
            break
        length = min(length, left)
        around = length * context
        before = int(shift * (around - length + 1))
        word = int(np.searchsorted(starts, at + before))
        if word == len(starts):
            break
        begin = int(starts[word])
        if whole_words:
            end = int(starts[word + length]) if word + length < len(starts) else size
            if end - begin > left:
                at = end
                continue
        else:
            end = begin + length
        if end >= size:
            break
        picked[begin:end] = True
        left -= end - begin
        at = end + around - length - before
    if left:
        picked[rng.choice(np.flatnonzero(~picked), left, replace=False)] = True
    return picked


@dataclasses.dataclass(frozen=True)
class PermutationMask:
    """XLNet's permutations: a sixth of the tokens are restored one by one, in a random order, each from those before it.

    Yang et al. 2019, sections 2.2, 2.3 and 3.1, as in the released code. An example is permuted in stretches of
    `permute_length` tokens: a later stretch sees all of the earlier ones, never the reverse. In a stretch there are
    plain tokens, which all see each other and nothing else; targets; and symbols ([SEP], [CLS]). Targets and symbols
    stand in a random order behind the plain tokens, and see those and what stands before them. The tokens stay what and
    where they are.

    `order` says it all: tokens see what has no higher number than their own, and a target, asked what it is, sees what
    has a lower one (`visibility.permuted`). The plain tokens of stretch s have the number s * (permute_length + 1); the
    others, in their order, the numbers after it.

    Targets come in spans of 1 to 5 tokens: see `pick_spans`. The paper has spans of so many words, but the released code
    tests the same token again and again where it should count word starts, so that they have so many tokens
    (`whole_words` follows the paper). Spans that cover symbols lose them.

    A worked example: of the tokens 10 11 12 3 (3 a symbol) 11 is picked, and the random order is 3 4 1 2. Then `order`
    is 0 4 0 2 and the targets are -100 11 -100 -100: 10 and 12 see each other, 3 sees itself too, and 11 is restored
    from all of them.
    """

    rate: float = 85 / 512
    """share of the tokens that become targets (the released code: 85 of 512, 43 in the first half, 42 in the second)"""
    max_span: int = 5
    """the longest span"""
    context: int = 6
    """a span has so many times its length of text around it, itself included (K of the paper)"""
    whole_words: bool = False
    """count the length of a span in words instead of tokens"""
    permute_length: int = 256
    """tokens that are permuted together; with memory, the tokens that go into it must be such stretches"""

    needs_roles: ClassVar[frozenset[str]] = frozenset()
    restores: ClassVar[str] = "permuted"
    lookahead: ClassVar[int] = 0

    def __post_init__(self) -> None:
        check_share(self, "rate")
        for name in ("max_span", "context", "permute_length"):
            if getattr(self, name) < 1:
                raise InputError(f"{name} is {getattr(self, name)}: it must be at least 1")

    def check(self, vocabulary: Vocabulary) -> None:
        """Any vocabulary will do."""

    def __call__(self, example: Example, vocabulary: Vocabulary, rng: np.random.Generator) -> Example:
        """Return the example with an order, and with targets that are the tokens themselves."""
        length = len(example)
        starts_word = example.special | vocabulary.special[example.inputs] | ~vocabulary.continues_word[example.inputs]
        budget = max(1, round(self.rate * length))
        order = np.empty(length, np.int64)
        targets = np.full(length, NO_TARGET, np.int64)
        given = 0
        for number, begin in enumerate(range(0, length, self.permute_length)):
            here = slice(begin, min(begin + self.permute_length, length))
            # Rounded up along the way: 43 and 42 of 85.
            due = math.ceil(budget * here.stop / length)
            special = example.special[here]
            picked = pick_spans(starts_word[here], due - given, self.max_span, self.context, self.whole_words, rng)
            given = due
            first = number * (self.permute_length + 1)
            rank = rng.permutation(len(special)) + 1
            order[here] = first + np.where(picked | special, rank, 0)
            asked = begin + np.flatnonzero(picked & ~special)
            targets[asked] = example.inputs[asked]
        return dataclasses.replace(example, order=order, targets=targets)
