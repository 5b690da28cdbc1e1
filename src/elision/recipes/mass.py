"""MASS: Song, Tan, Qin, Lu & Liu 2019, "MASS: Masked Sequence to Sequence Pre-training for Language Generation".

Hide one fragment, half of a sentence, from the encoder, and have the decoder write it from what is around it: the decoder
reads nothing but the fragment itself, a place behind, so it must lean on the encoder.

The backbone is XLM's, twice: layer norm after each sublayer and on the embeddings, learned positions (those that a
fragment's tokens have in the sentence, on both sides), a vector for each language, an output layer of token table and
bias. The paper's released code holds three programs that differ; this follows the one for unsupervised translation: the
first token is never hidden, a fragment lies at the beginning in a fifth of the sentences and at the end in another, and the
decoder looks at no place of the encoder that holds the mask. (The one for supervised translation shifts the mask by a
place, which lets the decoder see the first token that it is to write. The one for summaries hides a span in each block of
64 tokens, by default 15 % of them.)

Departures: the two sides share one token table, a step mixes languages (the code takes one each), byte-level BPE with XLM's
symbols stands for BPE over words that Moses has split, and a batch is 100 sentences where the code takes 3000 tokens. In
`summarization` the width, rate and steps are those of the released command, with the fragment of the paper in place of a
span in each block.
"""

from elision.data.mixing import LanguageMix
from elision.data.noise import Fragment
from elision.data.segment import FullSentences, Segmenter, SingleSentences
from elision.model.encoder_decoder import EncoderDecoder
from elision.model.init import WidthInit
from elision.model.position import LearnedPositions
from elision.model.transformer import Transformer
from elision.objectives import SequenceLM
from elision.recipe import Recipe
from elision.text.tokenizer import ByteLevelBPE
from elision.train.optim import AdamW
from elision.train.schedule import InverseSquareRoot
from elision.train.settings import Train


def tiny() -> Recipe:
    """Ours, for small machines and one language: 2 + 2 layers of width 128."""
    return _mass("mass-tiny", **TINY)


def tiny_translation() -> Recipe:
    """`tiny` for up to 8 languages, which documents must declare."""
    return _mass("mass-tiny-translation", **TINY, num_languages=8)


def translation() -> Recipe:
    """For unsupervised translation between two languages: 6 + 6 layers of width 1024."""
    return _mass("mass-translation", num_layers=6, hidden_size=1024, num_heads=8, num_languages=2, vocab_size=60_000)


def summarization() -> Recipe:
    """For summaries, one language: 6 + 6 layers of width 768, 512 tokens of running text."""
    return _mass(
        "mass-summarization", num_layers=6, hidden_size=768, num_heads=12, vocab_size=30_522, learning_rate=5e-4,
        warmup=10_000, steps=125_000, segmenter=FullSentences(max_length=512), scale_embeddings=True,
    )  # fmt: skip


TINY = {
    "num_layers": 2, "hidden_size": 128, "num_heads": 2, "vocab_size": 8192, "learning_rate": 1e-3, "warmup": 0.05,
    "steps": 20_000,
}  # fmt: skip


def _mass(
    name: str,
    num_layers: int,
    hidden_size: int,
    num_heads: int,
    vocab_size: int,
    *,
    num_languages: int = 0,
    segmenter: Segmenter = SingleSentences(max_length=102),
    scale_embeddings: bool = False,
    learning_rate: float = 1e-4,
    warmup: float = 4000,
    steps: int = 200_000,
) -> Recipe:
    encoder, decoder = (
        Transformer(
            num_layers=num_layers,
            hidden_size=hidden_size,
            num_heads=num_heads,
            feedforward_size=4 * hidden_size,
            visibility=visibility,
            norm="post",
            activation="gelu",
            positions=LearnedPositions(512),
            num_languages=num_languages,
            scale_embeddings=scale_embeddings,
            embedding_norm=True,
            norm_eps=1e-12,
            dropout=0.1,
            attention_dropout=0.1,
            init=WidthInit(),
        )
        for visibility in ("bidirectional", "causal")
    )
    return Recipe(
        name=name,
        tokenizer=ByteLevelBPE(vocab_size=vocab_size, layout="xlm"),
        segmenter=segmenter,
        noise=Fragment(rate=0.5, edge_share=0.2, mask_share=0.8, random_share=0.1),
        backbone=EncoderDecoder(encoder, decoder, start="bos", frame="bert", classifier="none"),
        objectives=(SequenceLM(bias=True),),
        train=Train(
            batch_size=100,
            steps=steps,
            optimizer=AdamW(learning_rate=learning_rate, beta2=0.98, weight_decay=0.0, clip_norm=5.0),
            schedule=InverseSquareRoot(warmup=warmup, initial_share=0.001),
        ),
        # The released code reads its languages equally often.
        mixing=LanguageMix(alpha=0.0) if num_languages > 1 else None,
    )
