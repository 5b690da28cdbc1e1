"""DistilBERT: Sanh, Debut, Chaumond & Wolf 2019, "DistilBERT, a distilled version of BERT: smaller, faster, cheaper and
lighter".

A student with half the layers of its teacher, no segments and no pooler, restores masked tokens, says of every token
what the teacher says, and turns its states the way the teacher's point.

It begins with every other layer of the teacher, with its tables and its head. The loss is 5 x soft-target KL at
temperature 2 over all tokens + 2 x masked-token cross-entropy + 1 x cosine, each a field of `Distillation`. Rare tokens
are masked more often: with probability proportional to count^-0.7. Any encoder of the same vocabulary can be the
teacher: `--objectives.0.teacher PATH`, where PATH is a run, a checkpoint or a Hugging Face folder, and the store is
prepared with the teacher's tokenizer.

Departures from the released code: targets are drawn example by example, not from a whole batch at once; examples share
rows (packing) where the code groups sequences of equal length; sequences of eleven tokens and fewer are not dropped.
Positions are trained: the code's training configuration builds a sinusoidal table that is not, and then writes the
teacher's over it. Batches and steps are a published command's 250 sequences for three passes over Wikipedia and books.

`roberta_base` is DistilRoBERTa's shape: the same for a student of RoBERTa.
"""

import dataclasses

from elision.data.noise import FrequencyMask
from elision.data.segment import FullSentences
from elision.model.init import NormalInit
from elision.model.position import LearnedPositions
from elision.model.transformer import Transformer
from elision.objectives import Distillation
from elision.recipe import Recipe
from elision.recipes import roberta
from elision.text.tokenizer import WordPiece
from elision.train.optim import AdamW
from elision.train.schedule import Linear
from elision.train.settings import Train


def tiny() -> Recipe:
    """2 layers of width 256, for a teacher like bert-mini: 9.5 M parameters."""
    recipe = _distilbert("distilbert-tiny", num_layers=2, hidden_size=256)
    return dataclasses.replace(
        recipe,
        segmenter=dataclasses.replace(recipe.segmenter, max_length=128),
        train=dataclasses.replace(recipe.train, batch_size=128, steps=10_000),
    )


def base() -> Recipe:
    """6 layers of width 768, for a teacher like bert-base: 66 M parameters."""
    return _distilbert("distilbert-base", num_layers=6, hidden_size=768)


def roberta_base() -> Recipe:
    """6 layers of width 768 with RoBERTa's symbols and positions, for a teacher like roberta-base: 82 M parameters."""
    teacher = roberta.base()
    return dataclasses.replace(
        base(),
        name="distilbert-roberta-base",
        tokenizer=teacher.tokenizer,
        backbone=dataclasses.replace(teacher.backbone, num_layers=6),
    )


def _distilbert(name: str, num_layers: int, hidden_size: int) -> Recipe:
    return Recipe(
        name=name,
        tokenizer=WordPiece(vocab_size=30522, lowercase=True),
        segmenter=FullSentences(max_length=512, cross_documents=False),
        noise=FrequencyMask(rate=0.15, power=0.7, mask_share=0.8, random_share=0.1),
        backbone=Transformer(
            num_layers=num_layers,
            hidden_size=hidden_size,
            num_heads=hidden_size // 64,
            feedforward_size=4 * hidden_size,
            visibility="bidirectional",
            norm="post",
            activation="gelu",
            positions=LearnedPositions(512),
            num_types=0,
            embedding_norm=True,
            pooler=False,
            classifier="relu",
            norm_eps=1e-12,
            dropout=0.1,
            attention_dropout=0.1,
            init=NormalInit(std=0.02),
        ),
        objectives=(Distillation(weight=2.0, soft_weight=5.0, cosine_weight=1.0, temperature=2.0),),
        train=Train(
            batch_size=250,
            steps=130_000,
            optimizer=AdamW(learning_rate=5e-4, beta2=0.98, eps=1e-6, weight_decay=0.0, clip_norm=5.0),
            schedule=Linear(warmup=0.05),
        ),
    )
