"""Objectives: what must be restored, and what a mistake costs. One file each."""

from elision.objectives.adaptive_lm import AdaptiveLM
from elision.objectives.answering import SpanExtraction
from elision.objectives.bidirectional_lm import BidirectionalLM
from elision.objectives.classification import Classification
from elision.objectives.clm import CausalLM
from elision.objectives.distillation import Distillation
from elision.objectives.mlm import MaskedLM
from elision.objectives.next_sentence import NextSentence
from elision.objectives.objective import Judged, Objective, Term, Terms
from elision.objectives.permutation import PermutationLM
from elision.objectives.replaced_mlm import ReplacedMLM
from elision.objectives.replaced_tokens import ReplacedTokens
from elision.objectives.sentence_order import SentenceOrder
from elision.objectives.sequence_lm import SequenceLM
from elision.objectives.span_boundary import SpanBoundary
from elision.objectives.tagging import TokenClassification
from elision.objectives.tied_lm import TiedLM

# Closed union of what a recipe accepts; Classification, TokenClassification and SpanExtraction belong to fine-tuning,
# whose labels no recipe knows.
AnyObjective = (
    MaskedLM
    | Distillation
    | SentenceOrder
    | CausalLM
    | AdaptiveLM
    | NextSentence
    | SpanBoundary
    | BidirectionalLM
    | ReplacedTokens
    | ReplacedMLM
    | PermutationLM
    | TiedLM
    | SequenceLM
)

__all__ = [
    "AdaptiveLM",
    "AnyObjective",
    "BidirectionalLM",
    "CausalLM",
    "Classification",
    "Distillation",
    "Judged",
    "MaskedLM",
    "NextSentence",
    "Objective",
    "PermutationLM",
    "ReplacedMLM",
    "ReplacedTokens",
    "SentenceOrder",
    "SequenceLM",
    "SpanBoundary",
    "SpanExtraction",
    "Term",
    "Terms",
    "TiedLM",
    "TokenClassification",
]
