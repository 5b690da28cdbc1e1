"""Noise: what is left out of an example, and what stands in its place. One file for each kind.

`pick_*` functions decide where, `rewrite_*` functions decide how; a noise is a frozen dataclass that joins one of each
with its settings. All are pure functions of their arguments and an explicit generator.

A noise is called with (example, vocabulary, rng) and returns the noised example with its targets. Its class says what
it `restores` ("masked" tokens, the "next" one, "permuted" ones, or a whole "sequence" that is to be written: the example's
`answer`), how many tokens past the example it needs (`lookahead`) and which symbols (`needs_roles`). One that restores a
sequence also says how many inputs and answer tokens an example can become (`lengths`).
"""

from elision.data.noise.bart import Denoising
from elision.data.noise.bernoulli import BernoulliMask
from elision.data.noise.context_ngrams import ContextNgramMask
from elision.data.noise.dynamic import DynamicMask
from elision.data.noise.electra import ElectraMask
from elision.data.noise.fragment import Fragment
from elision.data.noise.frequency import FrequencyMask
from elision.data.noise.given import GivenAnswer
from elision.data.noise.neighbours import Neighbours
from elision.data.noise.next import NextToken
from elision.data.noise.ngrams import NgramMask
from elision.data.noise.permutation import PermutationMask
from elision.data.noise.span_corruption import SpanCorruption
from elision.data.noise.spans import SpanMask
from elision.data.noise.text_to_text import TextToText
from elision.data.noise.tokens import TokenMask

# Closed union of what a recipe accepts.
Noise = (
    TokenMask
    | DynamicMask
    | BernoulliMask
    | ElectraMask
    | SpanMask
    | NgramMask
    | ContextNgramMask
    | FrequencyMask
    | GivenAnswer
    | NextToken
    | Neighbours
    | PermutationMask
    | SpanCorruption
    | TextToText
    | Fragment
    | Denoising
)

__all__ = [
    "BernoulliMask",
    "ContextNgramMask",
    "Denoising",
    "DynamicMask",
    "ElectraMask",
    "Fragment",
    "FrequencyMask",
    "GivenAnswer",
    "Neighbours",
    "NextToken",
    "NgramMask",
    "Noise",
    "PermutationMask",
    "SpanCorruption",
    "SpanMask",
    "TextToText",
    "TokenMask",
]
