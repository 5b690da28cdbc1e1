"""SpanBERT: Joshi, Chen, Liu, Weld, Zettlemoyer & Levy 2020, "Improving Pre-training by Representing and Predicting Spans".

Leave out whole spans of words, and restore each token twice: from its own place, and from the span's two boundaries.

BERT's encoder on one long stretch of a document instead of a sentence pair, without next sentences. Where the paper and
the released code differ, this follows the code: a span starts at the word of an evenly drawn token, the last one is cut
at the budget, spans that touch are one before their boundaries are asked, random tokens come from the unigram
distribution of the text, weight decay is 0.01 and acts on every parameter (the paper says 0.1). The code divides each
loss by its count plus one; here it is the count.

Segments are all 0; the second row of their table is there for pairs in fine-tuning. The two heads cost training time
only: exported, the model is a plain BERT.
"""

from elision.data.noise import SpanMask
from elision.data.segment import FullSentences
from elision.model.init import NormalInit
from elision.model.position import LearnedPositions
from elision.model.transformer import Transformer
from elision.objectives import MaskedLM, SpanBoundary
from elision.recipe import Recipe
from elision.text.tokenizer import WordPiece
from elision.train.optim import AdamW
from elision.train.schedule import Linear
from elision.train.settings import Train


def tiny() -> Recipe:
    """2 layers of width 128, 8,192 symbols, length 128: 1.5 M parameters."""
    train = _training(batch_size=64, steps=20_000, warmup=0.06, learning_rate=1e-3)
    return _spanbert("spanbert-tiny", 2, 128, train, vocab_size=8192, length=128)


def base() -> Recipe:
    """12 layers of width 768: 108 M parameters."""
    return _spanbert("spanbert-base", 12, 768, _training(256, 2_400_000, 10_000 / 2_400_000, 1e-4))


def large() -> Recipe:
    """24 layers of width 1024: 333 M parameters."""
    return _spanbert("spanbert-large", 24, 1024, _training(256, 2_400_000, 10_000 / 2_400_000, 1e-4))


def _training(batch_size: int, steps: int, warmup: float, learning_rate: float) -> Train:
    return Train(
        batch_size=batch_size,
        steps=steps,
        optimizer=AdamW(learning_rate=learning_rate, eps=1e-8, weight_decay=0.01, decay_all=True, clip_norm=1.0),
        schedule=Linear(warmup=warmup),
    )


def _spanbert(
    name: str, num_layers: int, hidden_size: int, train: Train, vocab_size: int = 28996, length: int = 512
) -> Recipe:
    return Recipe(
        name=name,
        tokenizer=WordPiece(vocab_size=vocab_size, lowercase=False),
        segmenter=FullSentences(max_length=length, cross_documents=False, long_sentences="drop"),
        noise=SpanMask(rate=0.15, p=0.2, max_words=10, mask_share=0.8, random_share=0.1, max_restored=15),
        backbone=Transformer(
            num_layers=num_layers,
            hidden_size=hidden_size,
            num_heads=hidden_size // 64,
            feedforward_size=4 * hidden_size,
            visibility="bidirectional",
            norm="post",
            activation="gelu",
            positions=LearnedPositions(512),
            num_types=2,
            embedding_norm=True,
            pooler=False,
            norm_eps=1e-12,
            dropout=0.1,
            attention_dropout=0.1,
            init=NormalInit(std=0.02),
        ),
        objectives=(MaskedLM(), SpanBoundary(num_offsets=15, offset_size=200)),
        train=train,
    )
