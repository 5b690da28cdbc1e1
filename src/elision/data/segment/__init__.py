"""Segmenters: which stretch of which documents is one example. One file for each kind.

A segmenter plans over a split of a store: the plan knows how many examples there are and builds any of them from its
index alone. Planning works on offsets; no text is copied until an example is asked for.
"""

from elision.data.segment.chunks import Chunks
from elision.data.segment.coded import CodedChunks
from elision.data.segment.language_blocks import LanguageBlocks
from elision.data.segment.language_pairs import LanguagePairs
from elision.data.segment.memory_streams import MemoryStreams
from elision.data.segment.pairs import SentencePairs
from elision.data.segment.parallel import TranslationPairs
from elision.data.segment.plan import Plan
from elision.data.segment.sentences import FullSentences
from elision.data.segment.single_sentences import SingleSentences
from elision.data.segment.source_target import SourceTarget
from elision.data.segment.streams import Streams
from elision.data.segment.swapped import SwappedPairs
from elision.data.segment.token_streams import TokenStreams
from elision.data.segment.two_segments import TwoSegments

# Closed union of what a recipe accepts.
Segmenter = (
    SentencePairs
    | SwappedPairs
    | TwoSegments
    | Chunks
    | CodedChunks
    | FullSentences
    | LanguageBlocks
    | SingleSentences
    | TokenStreams
    | MemoryStreams
    | Streams
    | TranslationPairs
    | SourceTarget
    | LanguagePairs
)

__all__ = [
    "Chunks",
    "CodedChunks",
    "FullSentences",
    "LanguageBlocks",
    "LanguagePairs",
    "MemoryStreams",
    "Plan",
    "Segmenter",
    "SentencePairs",
    "SingleSentences",
    "SourceTarget",
    "Streams",
    "SwappedPairs",
    "TranslationPairs",
    "TwoSegments",
]
