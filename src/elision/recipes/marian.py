"""Marian: Junczys-Dowmunt et al. 2018, "Marian: Fast Neural Machine Translation in C++", and OPUS-MT (Tiedemann &
Thottingal 2020, "OPUS-MT: Building open translation services for the World").

Leave out one side of a translation as a whole, read the other, and write it.

The Transformer of Vaswani et al. 2017 as Marian's task `transformer-base` sets it up: norms after each sum, sines and
cosines, embeddings times the root of their width, one token table for both languages and the output, a bias for each
token. The decoder begins with a vector of zeros: that of the padding, the last symbol, which is never written.

Where Marian in C++ and the models that Hugging Face converted from it differ, this follows the latter: the wave lengths
of the sines grow over width / 2 steps (C++: width / 2 - 1, `divisor="half_minus_one"`), and norms add 1e-5 (C++: 1e-9).
Departures: weights are not averaged (Marian keeps an average that moves by 1e-4 a step and translates with that); one
tokenizer serves both languages where OPUS-MT has one for each over a joint vocabulary; batches are counted in pairs, and
how many steps the published models took differs from one to another: `steps` and `batch_size` are ours. Marian reads
pairs of up to 100 tokens a side and leaves longer ones out, and so does this.
"""

from elision.data.noise import GivenAnswer
from elision.data.segment import SourceTarget
from elision.model.encoder_decoder import EncoderDecoder
from elision.model.init import GlorotInit
from elision.model.position import SinusoidalPositions
from elision.model.transformer import Transformer
from elision.objectives import SequenceLM
from elision.recipe import Recipe
from elision.text.tokenizer import Unigram
from elision.train.optim import AdamW
from elision.train.schedule import InverseSquareRoot
from elision.train.settings import Train


def tiny() -> Recipe:
    """Ours, for small machines: 2 + 2 layers of width 128, 8,000 symbols, up to 64 tokens a side."""
    return _marian(
        "marian-tiny", num_layers=2, hidden_size=128, num_heads=4, vocab_size=8000, max_length=64,
        batch_size=64, steps=10_000, learning_rate=2e-3, warmup=400,
    )  # fmt: skip


def base() -> Recipe:
    """The task transformer-base: 6 + 6 layers of width 512, 60.5 M parameters with 32,000 symbols."""
    return _marian("marian-base")


def big() -> Recipe:
    """The task transformer-big: width 1024, 209 M parameters."""
    return _marian("marian-big", hidden_size=1024, num_heads=16, learning_rate=2e-4, warmup=8000)


def opus_en_de() -> Recipe:
    """The shape of the published OPUS-MT models, for example English to German: 58,101 symbols, swish; 74 M parameters."""
    return _marian("marian-opus-en-de", vocab_size=58_101, activation="silu")


def _marian(
    name: str,
    num_layers: int = 6,
    hidden_size: int = 512,
    num_heads: int = 8,
    *,
    vocab_size: int = 32_000,
    max_length: int = 101,
    activation: str = "relu",
    dropout: float = 0.1,
    batch_size: int = 1000,
    steps: int = 300_000,
    learning_rate: float = 3e-4,
    warmup: int = 16_000,
) -> Recipe:
    encoder, decoder = (
        Transformer(
            num_layers=num_layers,
            hidden_size=hidden_size,
            num_heads=num_heads,
            feedforward_size=4 * hidden_size,
            visibility=visibility,
            norm="post",
            activation=activation,
            scale_embeddings=True,
            positions=SinusoidalPositions(512, layout="halves", divisor="half"),
            norm_eps=1e-5,
            dropout=dropout,
            # Marian drops whole states, not single weights of the attention.
            attention_dropout=0.0,
            init=GlorotInit(),
        )
        for visibility in ("bidirectional", "causal")
    )
    return Recipe(
        name=name,
        tokenizer=Unigram(vocab_size=vocab_size, layout="marian"),
        segmenter=SourceTarget(max_length=max_length, too_long="leave out", frame="causal"),
        noise=GivenAnswer(),
        backbone=EncoderDecoder(encoder, decoder, start="zero", frame="causal", classifier="none"),
        objectives=(SequenceLM(bias=True, label_smoothing=0.1),),
        train=Train(
            batch_size=batch_size,
            steps=steps,
            optimizer=AdamW(learning_rate=learning_rate, beta2=0.98, eps=1e-9, weight_decay=0.0, clip_norm=0.0),
            schedule=InverseSquareRoot(warmup=warmup, initial_share=1 / warmup),
        ),
    )
