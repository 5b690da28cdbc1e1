"""mBART: Liu, Gu, Goyal et al. 2020, "Multilingual Denoising Pre-training for Neural Machine Translation".

BART over 25 languages: leave out 35 % of the words in spans, put the sentences in another order, and write the text anew,
beginning with the symbol of its language. So one model learns to write every language, and translates after little more.

A block is <s> a </s> b </s> ne_NP: sentences of one document, each with its end, behind them the symbol of the language,
with which the decoder begins. Blocks of languages are read in proportion to the power 0.7 of their share. Against BART:
norms before each layer and after the last, embeddings multiplied by the root of their width.

A language of the data is matched to its symbol by its code (`elision.text.language_symbols`): "ne" is ne_NP. To read other
languages than the 25, train a tokenizer with symbols of theirs.

`translation` then teaches one direction, from a </s> ne_NP to b </s> en_XX, with which the decoder begins: start it from a
pretrained model (`elision pretrain mbart-translation --init-from runs/mbart --data pairs`, over a store with the tokenizer of
that model). Rates, smoothing and dropout are those of the released command, the batch is ours.

As in the released code, <s> stands before each block (the paper's figure has none), and words that end a sentence are left
out like others. In scripts without spaces every symbol counts as a word (there, a list of languages). Nobody published the
learning rate or the share of random tokens: they are BART's, as is the batch. Departures: dropout stays at 0.1 (the paper
lowers it to 0.05 after half of the steps and to 0 after four fifths).
"""

import dataclasses

from elision.data.mixing import LanguageMix
from elision.data.noise import Denoising, GivenAnswer
from elision.data.segment import LanguageBlocks, LanguagePairs
from elision.model.encoder_decoder import EncoderDecoder
from elision.model.init import NormalInit
from elision.model.position import LearnedPositions
from elision.model.transformer import Transformer
from elision.objectives import SequenceLM
from elision.recipe import Recipe
from elision.text.tokenizer import Unigram
from elision.train.optim import AdamW
from elision.train.schedule import Linear
from elision.train.settings import Train

LANGUAGES = (
    "ar_AR", "cs_CZ", "de_DE", "en_XX", "es_XX", "et_EE", "fi_FI", "fr_XX", "gu_IN", "hi_IN", "it_IT", "ja_XX", "kk_KZ",
    "ko_KR", "lt_LT", "lv_LV", "my_MM", "ne_NP", "nl_XX", "ro_RO", "ru_RU", "si_LK", "tr_TR", "vi_VN", "zh_CN",
)  # fmt: skip


def tiny() -> Recipe:
    """Ours, for small machines: 2 + 2 layers of width 128, 16,384 symbols, 128 tokens."""
    return _mbart(
        "mbart-tiny",
        _backbone(num_layers=2, hidden_size=128, num_heads=2, num_positions=256),
        Train(
            batch_size=64,
            steps=20_000,
            optimizer=AdamW(learning_rate=1e-3, beta2=0.98, eps=1e-6, clip_norm=1.0),
            schedule=Linear(warmup=0.02),
        ),
        vocab_size=16_384,
        max_length=128,
    )


def large() -> Recipe:
    """611 M parameters: 12 + 12 layers of width 1024, 250,027 symbols."""
    return _mbart(
        "mbart-large",
        _backbone(num_layers=12, hidden_size=1024, num_heads=16),
        Train(
            batch_size=8000,
            steps=500_000,
            optimizer=AdamW(learning_rate=4e-4, beta2=0.98, eps=1e-6, weight_decay=0.01, decay_all=True, clip_norm=0.1),
            schedule=Linear(warmup=10_000 / 500_000),
        ),
    )


def tiny_translation() -> Recipe:
    """Ours: `tiny` as it is taught to translate."""
    return _translation(tiny(), "mbart-tiny-translation", max_length=64, batch_size=64, steps=5000, learning_rate=3e-4)


def translation() -> Recipe:
    """`large` as it is taught to translate: 40,000 steps over pairs of two languages."""
    return _translation(large(), "mbart-translation", max_length=512, batch_size=500, steps=40_000, learning_rate=3e-5)


def _translation(base: Recipe, name: str, max_length: int, batch_size: int, steps: int, learning_rate: float) -> Recipe:
    sides = {
        side: dataclasses.replace(getattr(base.backbone, side), dropout=0.3, attention_dropout=0.1)
        for side in ("encoder", "decoder")
    }
    return dataclasses.replace(
        base,
        name=name,
        segmenter=LanguagePairs(max_length=max_length),
        noise=GivenAnswer(),
        backbone=dataclasses.replace(base.backbone, **sides),
        objectives=(SequenceLM(label_smoothing=0.2),),
        train=Train(
            batch_size=batch_size,
            steps=steps,
            optimizer=AdamW(learning_rate=learning_rate, beta2=0.98, eps=1e-6, weight_decay=0.0, clip_norm=0.0),
            schedule=Linear(warmup=2500 / 40_000),
        ),
        mixing=None,
    )


def _backbone(num_layers: int, hidden_size: int, num_heads: int, num_positions: int = 1024) -> EncoderDecoder:
    encoder, decoder = (
        Transformer(
            num_layers=num_layers,
            hidden_size=hidden_size,
            num_heads=num_heads,
            feedforward_size=4 * hidden_size,
            visibility=visibility,
            norm="pre",
            activation="gelu",
            positions=LearnedPositions(num_positions, offset=2),
            scale_embeddings=True,
            embedding_norm=True,
            final_norm=True,
            norm_eps=1e-5,
            dropout=0.1,
            attention_dropout=0.1,
            init=NormalInit(std=0.02),
        )
        for visibility in ("bidirectional", "causal")
    )
    return EncoderDecoder(encoder, decoder, start="last", frame="roberta", classifier="tanh")


def _mbart(
    name: str, backbone: EncoderDecoder, train: Train, vocab_size: int = 250_027, max_length: int = 512
) -> Recipe:
    return Recipe(
        name=name,
        tokenizer=Unigram(vocab_size=vocab_size, layout="xlm-r", extra_special_tokens=LANGUAGES),
        segmenter=LanguageBlocks(max_length=max_length),
        noise=Denoising(permute_sentences=1.0, infill=0.35, mean_words=3.5, random_share=0.1, sentence_end="separator"),
        backbone=backbone,
        objectives=(SequenceLM(),),
        train=train,
        mixing=LanguageMix(alpha=0.7),
    )
