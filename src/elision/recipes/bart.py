"""BART: Lewis, Liu, Goyal et al. 2020, "BART: Denoising Sequence-to-Sequence Pre-training for Natural Language Generation,
Translation, and Comprehension".

Leave out 30 % of the words in spans, each behind one mask that does not tell how long it was, put the sentences in another
order, and write the whole text anew: BERT's encoder, GPT's decoder, and any noise at all between them.

The paper gives the noise, the sizes, the batch of 8,000 and the 500,000 steps; the rest is that of the command that
circulates as the authors', for the released code: rate, warm-up, clipping, random tokens for a tenth of the masks. Spans
have 3 words on average as in the paper (3.5 in that command). As in the code a block is <s> x </s> with x from one document,
the decoder begins with </s>, the first token that it writes is <s>, and the loss is over all of them.

Departures: dropout stays on (the paper turns it off for the last tenth of the training); blocks are cut at the ends of
sentences that `elision prepare` found, not of lines. The other noises that the paper compares are fields of the noise:
`--noise.infill 0 --noise.mask 0.15` (token masking), `--noise.delete`, `--noise.rotate`.

Positions count from 2, as in all of fairseq's models.
"""

from elision.data.noise import Denoising
from elision.data.segment import FullSentences
from elision.model.encoder_decoder import EncoderDecoder
from elision.model.init import NormalInit
from elision.model.position import LearnedPositions
from elision.model.transformer import Transformer
from elision.objectives import SequenceLM
from elision.recipe import Recipe
from elision.text.tokenizer import ByteLevelBPE
from elision.train.optim import AdamW
from elision.train.schedule import Linear
from elision.train.settings import Train


def tiny() -> Recipe:
    """Ours, for small machines: 2 + 2 layers of width 128, 8,192 symbols, 128 tokens."""
    return _bart(
        "bart-tiny",
        _backbone(num_layers=2, hidden_size=128, num_heads=2, num_positions=256),
        Train(
            batch_size=64,
            steps=20_000,
            optimizer=AdamW(learning_rate=1e-3, weight_decay=0.01, decay_all=True, clip_norm=1.0),
            schedule=Linear(warmup=0.02),
        ),
        vocab_size=8192,
        max_length=128,
    )


def base() -> Recipe:
    """139 M parameters: 6 + 6 layers of width 768."""
    return _bart("bart-base", _backbone(num_layers=6, hidden_size=768, num_heads=12), _training())


def large() -> Recipe:
    """406 M parameters: 12 + 12 layers of width 1024."""
    return _bart("bart-large", _backbone(num_layers=12, hidden_size=1024, num_heads=16), _training())


def _backbone(num_layers: int, hidden_size: int, num_heads: int, num_positions: int = 1024) -> EncoderDecoder:
    encoder, decoder = (
        Transformer(
            num_layers=num_layers,
            hidden_size=hidden_size,
            num_heads=num_heads,
            feedforward_size=4 * hidden_size,
            visibility=visibility,
            norm="post",
            activation="gelu",
            positions=LearnedPositions(num_positions, offset=2),
            embedding_norm=True,
            norm_eps=1e-5,
            dropout=0.1,
            attention_dropout=0.1,
            init=NormalInit(std=0.02),
        )
        for visibility in ("bidirectional", "causal")
    )
    return EncoderDecoder(encoder, decoder, start="last", frame="roberta", classifier="tanh")


def _training() -> Train:
    return Train(
        batch_size=8000,
        steps=500_000,
        optimizer=AdamW(learning_rate=4e-4, weight_decay=0.01, decay_all=True, clip_norm=0.1),
        schedule=Linear(warmup=10_000 / 500_000),
    )


def _bart(name: str, backbone: EncoderDecoder, train: Train, vocab_size: int = 50265, max_length: int = 512) -> Recipe:
    return Recipe(
        name=name,
        tokenizer=ByteLevelBPE(vocab_size=vocab_size, layout="roberta"),
        segmenter=FullSentences(max_length=max_length, cross_documents=False),
        noise=Denoising(permute_sentences=1.0, infill=0.3, mean_words=3.0, random_share=0.1),
        backbone=backbone,
        objectives=(SequenceLM(),),
        train=train,
    )
