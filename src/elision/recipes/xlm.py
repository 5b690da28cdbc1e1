"""XLM: Lample & Conneau 2019, "Cross-lingual Language Model Pretraining".

Leave out 15 % of the places of text in many languages, and of translations laid side by side, and restore them.

Streams of text, cut every 256 tokens (MLM), and pairs of translations whose positions both start at 0 (TLM) take turns,
a step each, and share one output layer: the token table and a bias. Languages are drawn with p ∝ q^0.7 and have vectors
of their own. Where the paper and the released code differ, this follows the code: every place but the first of an
example may be masked, separators too; random tokens come from the whole vocabulary; embeddings start with a spread of
width^-1/2, linear layers as PyTorch starts them.

Departures: a step mixes languages (the code's has one); </s> stands before every document (the code's before every line);
a last target reaches into the next chunk in CLM; and the tokenizer is a byte-level BPE with XLM's symbols, where the
released models have BPE over words that Moses has split. The steps of a published run are not known: `steps` is ours.
`mlm_17` and `mlm_100` have no language embeddings, as released.
"""

from elision.data.mixing import LanguageMix
from elision.data.noise import BernoulliMask, NextToken
from elision.data.segment import Chunks, TranslationPairs
from elision.data.turns import Turn
from elision.model.init import WidthInit
from elision.model.position import LearnedPositions
from elision.model.transformer import Transformer
from elision.objectives import CausalLM, TiedLM
from elision.recipe import Recipe
from elision.text.tokenizer import ByteLevelBPE
from elision.train.optim import AdamW
from elision.train.schedule import InverseSquareRoot
from elision.train.settings import Train


def tiny() -> Recipe:
    """Ours, for small machines: MLM and TLM, 2 layers of width 128, length 128, up to 8 languages."""
    return _xlm("xlm-tiny", **TINY, translations=True)


def tiny_mlm() -> Recipe:
    """`tiny` without translations."""
    return _xlm("xlm-tiny-mlm", **TINY)


def tiny_clm() -> Recipe:
    """`tiny` as a causal model, without translations."""
    return _xlm("xlm-tiny-clm", **TINY, causal=True)


def mlm_tlm_xnli15() -> Recipe:
    """15 languages with translations: 12 layers of width 1024, 249 M parameters."""
    return _xlm("xlm-mlm-tlm-xnli15", **XNLI15, translations=True)


def mlm_xnli15() -> Recipe:
    """15 languages without translations."""
    return _xlm("xlm-mlm-xnli15", **XNLI15)


def mlm_en() -> Recipe:
    """English alone: 12 layers of width 2048, 667 M parameters."""
    return _xlm(
        "xlm-mlm-en", num_layers=12, hidden_size=2048, num_heads=16, num_languages=0, vocab_size=30145, mixing=None,
        optimizer=AdamW(learning_rate=2e-4, eps=1e-6, weight_decay=0.01, decay_all=True, clip_norm=5.0), warmup=30_000,
    )  # fmt: skip


def mlm_17() -> Recipe:
    """17 languages: 16 layers of width 1280, 571 M parameters."""
    return _xlm("xlm-mlm-17", **MANY)


def mlm_100() -> Recipe:
    """100 languages: the same model."""
    return _xlm("xlm-mlm-100", **MANY)


def clm_ende() -> Recipe:
    """English and German, causal: 6 layers of width 1024."""
    return _xlm(
        "xlm-clm-ende", num_layers=6, hidden_size=1024, num_heads=8, num_languages=2, vocab_size=64699, causal=True
    )


TINY = {
    "num_layers": 2, "hidden_size": 128, "num_heads": 2, "num_languages": 8, "vocab_size": 8192, "length": 128,
    "learning_rate": 1e-3, "warmup": 0.05, "steps": 20_000,
}  # fmt: skip
XNLI15 = {"num_layers": 12, "hidden_size": 1024, "num_heads": 8, "num_languages": 15, "vocab_size": 95000}
MANY = {"num_layers": 16, "hidden_size": 1280, "num_heads": 16, "num_languages": 0, "vocab_size": 200000}


def _xlm(
    name: str,
    num_layers: int,
    hidden_size: int,
    num_heads: int,
    num_languages: int,
    vocab_size: int,
    *,
    length: int = 256,
    learning_rate: float = 1e-4,
    warmup: float = 4000,
    steps: int = 1_000_000,
    optimizer: AdamW | None = None,
    causal: bool = False,
    translations: bool = False,
    mixing: LanguageMix | None = LanguageMix(alpha=0.7),
) -> Recipe:
    noise = BernoulliMask(rate=0.15, mask_share=0.8, random_share=0.1)
    return Recipe(
        name=name,
        tokenizer=ByteLevelBPE(vocab_size=vocab_size, layout="xlm"),
        segmenter=Chunks(max_length=length, cross_documents=True),
        noise=NextToken() if causal else noise,
        backbone=Transformer(
            num_layers=num_layers,
            hidden_size=hidden_size,
            num_heads=num_heads,
            feedforward_size=4 * hidden_size,
            visibility="causal" if causal else "bidirectional",
            norm="post",
            activation="gelu",
            positions=LearnedPositions(512),
            num_languages=num_languages,
            embedding_norm=True,
            frame="bert",
            classifier="none",
            norm_eps=1e-12,
            dropout=0.1,
            attention_dropout=0.1,
            init=WidthInit(),
        ),
        objectives=(CausalLM(bias=True) if causal else TiedLM(),),
        train=Train(
            batch_size=64,
            steps=steps,
            optimizer=optimizer or AdamW(learning_rate=learning_rate, beta2=0.98, weight_decay=0.0, clip_norm=5.0),
            schedule=InverseSquareRoot(warmup=warmup, initial_share=0.001),
        ),
        mixing=mixing,
        turns=(Turn("tlm", TranslationPairs(max_length=length), noise, mixing=mixing),) if translations else (),
    )
