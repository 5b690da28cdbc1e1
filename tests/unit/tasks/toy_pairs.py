"""Pairs of texts whose target is plain to see from the source: every word has one translation."""

import dataclasses
import random
from pathlib import Path

import torch

from elision.data.noise import GivenAnswer
from elision.data.segment import SourceTarget
from elision.model.encoder_decoder import EncoderDecoder
from elision.model.language_model import LanguageModel
from elision.model.position import LearnedPositions, RelativePositions
from elision.model.transformer import Transformer
from elision.objectives import SequenceLM
from elision.recipe import Recipe
from elision.tasks.pairs_of_text import TextPair
from elision.text.tokenizer import ByteLevelBPE
from elision.train import checkpoint
from tests import tiny
from tests.unit.tasks import toy

WORDS = {"ba": "ra", "do": "su", "ki": "ti", "lu": "ve"}


def pairs(num: int, seed: int, most: int = 4) -> list[TextPair]:
    """Return sources of words and their translations, word by word."""
    rng = random.Random(seed)
    made = []
    for _ in range(num):
        source = rng.choices(list(WORDS), k=rng.randint(1, most))
        made.append(TextPair(" ".join(source), (" ".join(WORDS[word] for word in source),)))
    return made


def recipe(kind: str) -> Recipe:
    """Return an encoder-decoder of test size, like "bart" or like "t5", or a decoder that reads a "prefix" as a whole."""
    like_t5 = kind == "t5"
    plain = {"dropout": 0.0, "attention_dropout": 0.0}
    if like_t5:
        plain |= {"norm": "pre", "final_norm": True, "norm_kind": "rms", "biases": "none", "scale_attention": False}
        plain["positions"] = RelativePositions()
    else:
        plain |= {"norm": "post", "embedding_norm": True, "positions": LearnedPositions(64)}
    if kind == "prefix":
        backbone = Transformer(2, 32, 2, 64, "prefix", **plain)
        return dataclasses.replace(
            tiny.recipe("gpt2-tiny"), name="prefix-toy", segmenter=SourceTarget(max_length=32), noise=GivenAnswer(),
            backbone=backbone, objectives=(SequenceLM(),),
        )  # fmt: skip
    sides = (Transformer(2, 32, 2, 64, visibility, **plain) for visibility in ("bidirectional", "causal"))
    start, frame = ("pad", "causal") if like_t5 else ("last", "roberta")
    languages = ("aa_XX", "bb_XX")
    return dataclasses.replace(
        tiny.recipe("gpt2-tiny"),
        name=f"{kind}-toy",
        # Trained the same every time, which a unigram model is not to the last bit.
        tokenizer=ByteLevelBPE(300, layout="roberta", extra_special_tokens=languages),
        segmenter=SourceTarget(max_length=32, frame=frame),
        noise=GivenAnswer(),
        backbone=EncoderDecoder(*sides, start=start, frame=frame),
        objectives=(SequenceLM(),),
    )


def untrained(folder: Path, kind: str) -> Path:
    """Write a checkpoint with random weights: of an encoder-decoder like "bart" or "t5", a "prefix" decoder or "gpt2"."""
    if kind == "gpt2":
        return toy.untrained(folder, "gpt2-tiny")
    made = recipe(kind)
    torch.manual_seed(0)
    tokenizer = tiny.tokenizer(made.tokenizer)
    folder.mkdir(parents=True)
    made.save(folder / "recipe.json")
    tokenizer.save(folder / "tokenizer")
    checkpoint.write_weights(folder, LanguageModel(made.backbone, made.objectives, tokenizer.vocabulary.size))
    return folder
