"""Any noise that leaves out a text to be written goes with anything that writes, and with nothing else."""

import dataclasses
from collections.abc import Callable

import pytest
import torch

from elision.data.noise import (
    Denoising,
    DynamicMask,
    Fragment,
    GivenAnswer,
    NextToken,
    Noise,
    PermutationMask,
    SpanCorruption,
    TextToText,
)
from elision.data.noise.text_to_text import Ending, RandomSpans, RandomTokens
from elision.data.segment import Chunks, FullSentences, SourceTarget
from elision.data.store import Store
from elision.errors import InputError
from elision.model.encoder_decoder import EncoderDecoder
from elision.model.position import LearnedPositions, RelativePositions, RotaryPositions
from elision.model.transformer import Transformer
from elision.objectives import CausalLM, MaskedLM, ReplacedTokens, SequenceLM
from elision.objectives.generator import Generator
from elision.recipe import Recipe
from elision.text.tokenizer import Unigram
from tests import tiny

StoreOf = Callable[[Recipe], Store]


def stack(visibility: str, **settings: object) -> Transformer:
    plain = {"norm": "pre", "final_norm": True, "dropout": 0.0, "attention_dropout": 0.0}
    return Transformer(2, 32, 2, 64, visibility, **{**plain, "positions": LearnedPositions(96), **settings})


def both(**settings: object) -> EncoderDecoder:
    return EncoderDecoder(stack("bidirectional", **settings), stack("causal", **settings), start="pad", frame="causal")


WRITERS = {
    "encoder-decoder": both(),
    "post-norm encoder-decoder": both(norm="post", final_norm=False, embedding_norm=True),
    "relative encoder-decoder": both(positions=RelativePositions(), norm_kind="rms", biases="none"),
    "prefix decoder": stack("prefix"),
    "rotary prefix decoder": stack("prefix", positions=RotaryPositions(num_positions=96), norm_kind="rms", gated=True),
    "causal decoder": stack("causal", windows=(None, 8)),
}
NOISES: dict[str, Noise] = {
    "infilling": Denoising(),
    "masks": Denoising(infill=0.0, mask=0.3),
    "deletion": Denoising(infill=0.0, delete=0.3),
    "rotation": Denoising(infill=0.0, rotate=1.0),
    "spans": SpanCorruption(),
    "i.i.d.": TextToText(RandomTokens()),
    "bert": TextToText(RandomTokens(), read="replaced", write="whole"),
    "mass style": TextToText(RandomTokens(), read="hidden", write="whole"),
    "drop": TextToText(RandomSpans(), read="dropped", write="left out"),
    "deshuffle": TextToText(RandomTokens(), read="shuffled", write="whole"),
    "prefix": TextToText(Ending(), read="dropped", write="left out"),
}
BASE = dataclasses.replace(
    tiny.recipe("gpt2-tiny"),
    tokenizer=Unigram(vocab_size=300, layout="xlm-r", num_sentinels=20),
    segmenter=Chunks(max_length=24, separated=False),
    noise=NOISES["spans"],
    backbone=WRITERS["encoder-decoder"],
    objectives=(SequenceLM(),),
)


@pytest.mark.parametrize("noise", NOISES)
@pytest.mark.parametrize("writer", WRITERS)
def test_every_noise_that_leaves_out_a_text_goes_with_every_writer(noise: str, writer: str, store_of: StoreOf) -> None:
    recipe = dataclasses.replace(BASE, noise=NOISES[noise], backbone=WRITERS[writer])
    store = store_of(recipe)
    torch.manual_seed(0)
    model = tiny.model(recipe, store)
    (batch,) = tiny.loader(recipe, store).microbatches(0)
    assert (batch.decoder_inputs is not None) == isinstance(recipe.backbone, EncoderDecoder)
    terms, _ = model(batch)
    term = terms["seq2seq"]
    assert term.count == batch.num_targets == model.counts(batch)["seq2seq"]
    term.sum.backward()
    assert 3 < float(term.sum.detach()) / term.count < 12
    # A table of positions has rows that nobody has reached; every other parameter is.
    assert all(parameter.grad is not None for parameter in model.parameters())


@pytest.mark.parametrize("writer", ["encoder-decoder", "relative encoder-decoder"])
def test_fragments_need_a_decoder_of_their_own(writer: str, store_of: StoreOf) -> None:
    recipe = dataclasses.replace(BASE, noise=Fragment(), backbone=WRITERS[writer])
    store = store_of(recipe)
    (batch,) = tiny.loader(recipe, store).microbatches(0)
    assert batch.unseen is not None and batch.unseen.any()
    terms, _ = tiny.model(recipe, store)(batch)
    assert torch.isfinite(terms["seq2seq"].sum)


MASKED = tiny.recipe("roberta-tiny")
REFUSED: dict[str, Callable[[], Recipe]] = {
    "Fragment says what the decoder reads": lambda: dataclasses.replace(
        BASE, noise=Fragment(), backbone=WRITERS["prefix decoder"]
    ),
    "Transformer with visibility 'bidirectional' does not write": lambda: dataclasses.replace(
        BASE, backbone=stack("bidirectional")
    ),
    "XLNet with visibility": lambda: dataclasses.replace(
        BASE, backbone=tiny.without_memory(tiny.recipe("xlnet-tiny")).backbone
    ),
    "EncoderDecoder writes a text of its own, but DynamicMask": lambda: dataclasses.replace(
        MASKED, noise=DynamicMask(), backbone=both()
    ),
    "EncoderDecoder writes a text of its own, but NextToken": lambda: dataclasses.replace(
        BASE, noise=NextToken(), objectives=(CausalLM(),)
    ),
    "EncoderDecoder writes a text of its own, but PermutationMask": lambda: dataclasses.replace(
        BASE, noise=PermutationMask()
    ),
    "ReplacedTokens restores masked tokens, but SpanCorruption": lambda: dataclasses.replace(
        BASE, objectives=(ReplacedTokens(generator=Generator(width=1.0)),)
    ),
    "MaskedLM restores masked tokens, but SpanCorruption": lambda: dataclasses.replace(BASE, objectives=(MaskedLM(),)),
    "SequenceLM restores sequence tokens, but DynamicMask": lambda: dataclasses.replace(
        MASKED, objectives=(SequenceLM(),)
    ),
    "GivenAnswer takes the answers that come with the examples, and Chunks has none": lambda: dataclasses.replace(
        BASE, noise=GivenAnswer()
    ),
    "SourceTarget gives examples with their answers": lambda: dataclasses.replace(
        BASE, segmenter=SourceTarget(max_length=24)
    ),
    "backbone.visibility is 'prefix', but NextToken": lambda: dataclasses.replace(
        BASE, noise=NextToken(), backbone=WRITERS["prefix decoder"], objectives=(CausalLM(),)
    ),
    "backbone.decoder.positions.num_positions is 16": lambda: dataclasses.replace(
        BASE,
        noise=Denoising(),
        backbone=dataclasses.replace(both(), decoder=stack("causal", positions=LearnedPositions(16))),
    ),
    "in one text": lambda: dataclasses.replace(
        BASE, noise=Denoising(), backbone=stack("prefix", positions=LearnedPositions(40))
    ),
}


@pytest.mark.parametrize("reason", REFUSED)
def test_what_cannot_be_written_is_refused_with_the_reason(reason: str) -> None:
    with pytest.raises(InputError) as refusal:
        REFUSED[reason]()
    assert reason in str(refusal.value)


def test_replaced_tokens_over_an_encoder_decoder_are_refused_because_it_cannot_fill_in() -> None:
    with pytest.raises(InputError, match="EncoderDecoder writes a text of its own"):
        dataclasses.replace(
            MASKED,
            noise=DynamicMask(),
            segmenter=FullSentences(24),
            backbone=both(),
            objectives=(ReplacedTokens(generator=Generator(width=1.0)),),
        )
