"""MASS against the paper spelled out: loops over tokens, heads and channels' sums, in float64 and without PyTorch's layers."""

import dataclasses
import math

import numpy as np
import pytest
import torch

from elision.data.batch import Batch, collate
from elision.data.example import Example
from elision.data.noise import Fragment
from elision.data.order import generator
from elision.model.language_model import LanguageModel
from tests import tiny

pytestmark = pytest.mark.parity

VOCABULARY = tiny.vocabulary(60)
EXACT = {"dropout": 0.0, "attention_dropout": 0.0}

Weights = dict[str, np.ndarray]


def model_of(name: str) -> LanguageModel:
    """Return a tiny model in float64 of which every parameter has moved."""
    recipe = tiny.recipe(name, **EXACT)
    torch.manual_seed(0)
    model = LanguageModel(recipe.backbone, recipe.objectives, VOCABULARY.size).double().eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.2 * torch.randn_like(parameter)
    return model


def example(length: int, index: int, language: int | None = None) -> Example:
    """Return a noised sentence of that many tokens, all in one language if any."""
    tokens = np.random.default_rng(index).integers(6, VOCABULARY.size, length)
    spoken = None if language is None else np.full(length, language)
    return Fragment()(
        Example(tokens, np.zeros(length, bool), languages=spoken), VOCABULARY, generator(1, "noise", index)
    )


def linear(weights: Weights, name: str, vector: np.ndarray) -> np.ndarray:
    return weights[f"{name}.weight"] @ vector + weights[f"{name}.bias"]


def normed(weights: Weights, name: str, vector: np.ndarray) -> np.ndarray:
    centred = vector - vector.mean()
    return centred / math.sqrt((centred**2).mean() + 1e-12) * weights[f"{name}.weight"] + weights[f"{name}.bias"]


def gelu(vector: np.ndarray) -> np.ndarray:
    return np.array([x * 0.5 * (1 + math.erf(x / math.sqrt(2))) for x in vector])


def mixed(query: np.ndarray, keys: list[np.ndarray], values: list[np.ndarray], num_heads: int) -> np.ndarray:
    """Attention of one token to those given, head by head."""
    size, parts = len(query) // num_heads, []
    for head in range(num_heads):
        own = slice(head * size, (head + 1) * size)
        scores = [float(query[own] @ key[own]) / math.sqrt(size) for key in keys]
        most = max(scores)
        shares = [math.exp(score - most) for score in scores]
        parts.append(sum(share / sum(shares) * value[own] for share, value in zip(shares, values)))
    return np.concatenate(parts)


def embedded(weights: Weights, side: str, token: int, position: int, language: int | None) -> np.ndarray:
    vector = weights["backbone.encoder.embeddings.tokens.weight"][token]
    vector = vector + weights[f"backbone.{side}.embeddings.positions.table.weight"][position]
    if language is not None:
        vector = vector + weights[f"backbone.{side}.embeddings.languages.weight"][language]
    return normed(weights, f"backbone.{side}.embeddings.norm", vector)


def stack(
    weights: Weights, side: str, states: list[np.ndarray], num_heads: int, source: list[np.ndarray] | None = None
) -> list[np.ndarray]:
    """Two blocks, norm after each sublayer; with a source, causal and with attention to it."""
    width = len(states[0])
    for layer in range(2):
        block = f"backbone.{side}.blocks.{layer}"
        projected = [linear(weights, f"{block}.attention.query_key_value", state) for state in states]
        new = []
        for place, state in enumerate(states):
            seen = projected if source is None else projected[: place + 1]
            attended = mixed(
                projected[place][:width],
                [p[width : 2 * width] for p in seen],
                [p[2 * width :] for p in seen],
                num_heads,
            )
            state = normed(
                weights, f"{block}.norm_after_attention", state + linear(weights, f"{block}.attention.output", attended)
            )
            if source is not None:
                query = linear(weights, f"{block}.cross_attention.query", state)
                read = [linear(weights, f"{block}.cross_attention.key_value", vector) for vector in source]
                attended = mixed(query, [r[:width] for r in read], [r[width:] for r in read], num_heads)
                added = linear(weights, f"{block}.cross_attention.output", attended)
                state = normed(weights, f"{block}.norm_after_cross_attention", state + added)
            inner = gelu(linear(weights, f"{block}.feedforward.inner", state))
            added = linear(weights, f"{block}.feedforward.output", inner)
            new.append(normed(weights, f"{block}.norm_after_feedforward", state + added))
        states = new
    return states


def reference_logits(model: LanguageModel, one: Example) -> np.ndarray:
    """Return [m, V]: the scores of every token for each place of the fragment."""
    weights = {name: value.numpy() for name, value in model.state_dict().items()}
    heads = model.backbone.settings.decoder.num_heads
    spoken = None if one.languages is None else int(one.languages[0])
    read = [embedded(weights, "encoder", token, place, spoken) for place, token in enumerate(one.inputs)]
    read = stack(weights, "encoder", read, heads)
    # The decoder looks at no place that holds the mask.
    source = [state for state, token in zip(read, one.inputs) if token != VOCABULARY.mask]
    written = [
        embedded(weights, "decoder", token, position, spoken)
        for token, position in zip(one.decoder_inputs, one.decoder_positions)
    ]
    states = stack(weights, "decoder", written, heads, source)
    table = weights["backbone.encoder.embeddings.tokens.weight"]
    return np.stack([table @ state + weights["heads.seq2seq.bias"] for state in states])


@pytest.mark.parametrize(("name", "language"), [("mass-tiny", None), ("mass-tiny-translation", 1)])
def test_logits_equal_those_of_the_paper_spelled_out_alone_and_packed(name: str, language: int | None) -> None:
    model = model_of(name)
    examples = [example(length, index, language) for index, length in enumerate((9, 2, 6, 13))]
    expected = [reference_logits(model, one) for one in examples]
    for one, wanted in zip(examples, expected):
        with torch.no_grad():
            ours = model.logits(collate([one], pad_id=0))
        np.testing.assert_allclose(ours[0].numpy(), wanted, rtol=0, atol=1e-11)
    packed = collate(examples, pad_id=0, row_length=17, decoder_row_length=9)
    assert len(packed.inputs) == 2
    with torch.no_grad():
        flat = model.logits(packed).flatten(0, 1)[packed.target_at].numpy()
    # Row by row, in the order in which the batch names its examples.
    wanted = np.concatenate([expected[index] for index in packed.examples])
    np.testing.assert_allclose(flat, wanted, rtol=0, atol=1e-11)
    losses = [-torch.from_numpy(logits).log_softmax(-1) for logits in expected]
    total = sum(float(loss[range(len(one.targets)), one.targets].sum()) for loss, one in zip(losses, examples))
    term = model(packed)[0]["seq2seq"]
    assert term.count == sum(len(one.targets) for one in examples)
    assert abs(float(term.sum.detach()) - total) < 1e-9


def unmasked(one: Example) -> Batch:
    return collate([dataclasses.replace(one, unseen=None)], pad_id=0)


def test_masked_places_of_the_encoder_would_matter_if_they_were_seen() -> None:
    model, one = model_of("mass-tiny"), example(12, 0)
    assert one.unseen.any()
    with torch.no_grad():
        hidden, shown = model.logits(collate([one], pad_id=0)), model.logits(unmasked(one))
    assert (hidden - shown).abs().max() > 1e-3


def test_no_token_of_the_text_outside_the_fragment_is_read_by_the_decoder() -> None:
    # All that the decoder reads itself are the tokens that precede its targets, at their places in the sentence.
    one = example(12, 3)
    start = int(one.decoder_positions[0])
    tokens = np.random.default_rng(3).integers(6, VOCABULARY.size, 12)
    assert one.decoder_inputs.tolist() == tokens[start : start + 6].tolist()
    assert one.targets.tolist() == tokens[start + 1 : start + 7].tolist()
