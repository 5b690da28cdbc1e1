"""Encoder and decoder together, prefix decoders, and decoding from a cache."""

import dataclasses

import numpy as np
import pytest
import torch

from elision.data.answers import joined, written
from elision.data.batch import Batch, collate
from elision.data.example import Example
from elision.errors import InputError
from elision.model.backbone import Output
from elision.model.encoder_decoder import EncoderDecoder, EncoderDecoderModel
from elision.model.position import LearnedPositions, RelativePositions, RotaryPositions, SinusoidalPositions
from elision.model.transformer import Transformer, TransformerModel

VOCAB = 40


def stack(visibility: str, **settings: object) -> Transformer:
    plain = {"dropout": 0.0, "attention_dropout": 0.0, "norm": "pre", "final_norm": True}
    return Transformer(2, 16, 2, 32, visibility, **{**plain, **settings})


def both(**settings: object) -> EncoderDecoder:
    return EncoderDecoder(stack("bidirectional", **settings), stack("causal", **settings))


KINDS = {
    "learned": {},
    "post": {"norm": "post", "final_norm": False, "embedding_norm": True, "scale_embeddings": True},
    "t5": {
        "positions": RelativePositions(), "norm_kind": "rms", "biases": "none", "gated": True, "scale_attention": False,
        "head_size": 12,
    },
    "rotary": {"positions": RotaryPositions(num_positions=64), "num_key_value_heads": 1},
    "sinusoids": {"positions": SinusoidalPositions(layout="halves"), "activation": "silu", "biases": "output"},
}  # fmt: skip
PARALLEL = {"parallel": {"parallel": True, "positions": RotaryPositions(num_positions=64, share=0.5)}}


def moved(model: torch.nn.Module) -> torch.nn.Module:
    """Return the model in float64 with every parameter moved, so that each can be seen to matter."""
    torch.manual_seed(0)
    model = model.double().eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.1 * torch.randn_like(parameter)
    return model


def examples() -> list[Example]:
    rng = np.random.default_rng(0)
    made = []
    for size, answer in ((5, 3), (2, 6), (7, 1), (3, 4)):
        inputs = rng.integers(3, VOCAB, size)
        made.append(Example(inputs, np.zeros(size, bool), answer=rng.integers(3, VOCAB, answer)))
    return made


def test_an_answer_is_written_after_its_start() -> None:
    example = Example(np.array([20, 21]), np.zeros(2, bool), answer=np.array([10, 11, 2]))
    shifted, padded = written(example, None), written(example, 0)
    assert shifted.decoder_inputs.tolist() == [2, 10, 11] and shifted.targets.tolist() == [10, 11, 2]
    assert padded.decoder_inputs.tolist() == [0, 10, 11]


def test_a_joined_text_has_targets_at_its_answer_and_a_prefix_one_place_longer_than_the_inputs() -> None:
    example = Example(np.array([20, 21]), np.array([False, True]), answer=np.array([10, 11, 2]), summary=2)
    text = joined(example, 0)
    assert text.inputs.tolist() == [0, 20, 21, 10, 11]
    assert text.targets.tolist() == [-100, -100, 10, 11, 2]
    assert text.prefix.tolist() == [True, True, True, False, False]
    assert text.special.tolist() == [False, False, True, False, False]
    assert text.summary == 4
    bare = joined(example, None)
    assert bare.inputs.tolist() == [20, 21, 10, 11] and bare.targets.tolist() == [-100, 10, 11, 2]


@pytest.mark.parametrize("kind", KINDS)
def test_packed_answers_get_the_states_that_they_get_alone(kind: str) -> None:
    model = moved(both(**KINDS[kind]).build(VOCAB))
    read = [written(example, None) for example in examples()]
    packed = collate(read, pad_id=0, row_length=9, decoder_row_length=9)
    assert packed.inputs.shape[0] == 2
    found = by_example(model(packed), packed)
    for index, example in enumerate(read):
        alone = collate([example], pad_id=0)
        assert alone.whole_rows
        torch.testing.assert_close(found[index], model(alone).hidden[0], rtol=0, atol=1e-12)


def by_example(output: Output, batch: Batch) -> dict[int, torch.Tensor]:
    found = {}
    for index, place in zip(batch.examples, batch.summary_at.tolist(), strict=True):
        row, column = divmod(place, batch.decoder_inputs.shape[1])
        found[index] = output.hidden[row, batch.decoder_doc_ids[row] == batch.decoder_doc_ids[row, column]]
    return found


def test_the_places_that_nobody_reads_may_be_left_out_of_the_last_block() -> None:
    model = moved(both().build(VOCAB))
    read = [dataclasses.replace(written(example, None), label=1) for example in examples()]
    for example in read:
        example.targets[:-1] = -100
    batch = collate(read, pad_id=0, packing=False)
    assert batch.needed_at is not None
    whole, part = model(batch).hidden, model(batch, needed_only=True).hidden
    at = batch.needed_at
    torch.testing.assert_close(part.flatten(0, 1)[at], whole.flatten(0, 1)[at], rtol=0, atol=1e-12)


def test_a_decoder_does_not_look_at_what_is_unseen_but_the_encoder_does() -> None:
    model = moved(both().build(VOCAB))
    example = written(examples()[0], None)
    hidden = dataclasses.replace(example, unseen=np.array([False, True, False, False, True]))
    batch, hiding = collate([example], pad_id=0), collate([hidden], pad_id=0)
    source = model.encoder(hiding).hidden.clone()
    torch.testing.assert_close(source, model.encoder(batch).hidden, rtol=0, atol=0)
    assert not torch.allclose(model(batch).hidden, model(hiding).hidden)
    sees = model.settings.source_visible(hiding)
    before = model.decoder(hiding.decoder_side, source=source, source_visible=sees).hidden
    source[:, [1, 4]] += 5
    torch.testing.assert_close(
        model.decoder(hiding.decoder_side, source=source, source_visible=sees).hidden, before, rtol=0, atol=0
    )


@pytest.mark.parametrize("kind", KINDS)
def test_decoding_from_a_cache_equals_one_pass_and_reads_the_source_once(kind: str) -> None:
    model = moved(both(**KINDS[kind]).build(VOCAB))
    batch = collate([written(example, None) for example in examples()], pad_id=0, packing=False)
    whole = model(batch).hidden
    with torch.inference_mode():
        cache = model.read(batch)
        states = [model.continue_with(batch.decoder_inputs[:, :2], cache)]
        held = cache.layers[0].cross[0].data_ptr()
        for at in range(2, batch.decoder_inputs.shape[1]):
            states.append(model.continue_with(batch.decoder_inputs[:, at : at + 1], cache))
        assert cache.layers[0].cross[0].data_ptr() == held
    real = batch.decoder_doc_ids > 0
    torch.testing.assert_close(torch.cat(states, 1)[real], whole[real], rtol=0, atol=1e-12)


def test_hypotheses_of_one_source_share_what_was_read_of_it() -> None:
    model = moved(both().build(VOCAB))
    batch = collate([written(example, None) for example in examples()], pad_id=0, packing=False)
    beams = 3
    tokens = torch.randint(3, VOCAB, (4 * beams, 3))
    with torch.inference_mode():
        cache = model.read(batch)
        together = [model.continue_with(tokens[:, at : at + 1], cache) for at in range(3)]
        assert cache.layers[0].cross[0].shape[0] == 4
        repeated = batch.inputs.repeat_interleave(beams, 0)
        apart = dataclasses.replace(
            batch,
            inputs=repeated,
            **{n: getattr(batch, n).repeat_interleave(beams, 0) for n in ("positions", "doc_ids")},
        )
        alone = model.read(apart)
        separately = [model.continue_with(tokens[:, at : at + 1], alone) for at in range(3)]
    for one, other in zip(together, separately):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-12)


@pytest.mark.parametrize("kind", [*KINDS, "parallel"])
@pytest.mark.parametrize("windows", [(), (4,), (None, 3)])
def test_left_padding_and_windows_change_nothing_when_decoding(kind: str, windows: tuple[int | None, ...]) -> None:
    model: TransformerModel = moved(stack("causal", windows=windows, **(KINDS | PARALLEL)[kind]).build(VOCAB))
    lengths, total = (20, 7, 13), 20
    rows = [torch.randint(3, VOCAB, (length,)) for length in lengths]
    texts = [Example(row.numpy(), np.zeros(len(row), bool)) for row in rows]
    whole = model(collate(texts, pad_id=0, packing=False)).hidden
    padded = torch.stack([torch.cat([torch.zeros(total - len(row), dtype=torch.long), row]) for row in rows])
    with torch.inference_mode():
        cache = model.cache(torch.tensor([total - length for length in lengths]))
        states = [model.continue_with(padded[:, :9], cache), model.continue_with(padded[:, 9:14], cache)]
        states += [model.continue_with(padded[:, at : at + 1], cache) for at in range(14, total)]
    got = torch.cat(states, 1)
    for row, length in enumerate(lengths):
        torch.testing.assert_close(got[row, total - length :], whole[row, :length], rtol=0, atol=1e-12)
    for layer, window in zip(cache.layers, [model.settings.window_of(0), model.settings.window_of(1)], strict=True):
        assert layer.num_held == (total if window is None else window - 1)


def test_a_rolling_cache_stays_small() -> None:
    model: TransformerModel = moved(
        stack("causal", windows=(4,), positions=RotaryPositions(num_positions=512)).build(VOCAB)
    )
    tokens = torch.randint(3, VOCAB, (1, 300))
    with torch.inference_mode():
        cache = model.cache()
        last = [model.continue_with(tokens[:, at : at + 1], cache) for at in range(300)][-1]
        assert cache.layers[0]._key.shape[2] <= 8
        full = model(collate([Example(tokens[0].numpy(), np.zeros(300, bool))], pad_id=0)).hidden
    torch.testing.assert_close(last[0, 0], full[0, -1], rtol=0, atol=1e-12)


def test_a_prefix_is_seen_by_all_and_the_rest_by_what_follows_it() -> None:
    model: TransformerModel = moved(stack("prefix").build(VOCAB))
    text = joined(examples()[0], 1)
    batch = collate([text], pad_id=0)
    before = model(batch).hidden
    size = len(text)
    for key in range(size):
        changed = batch.inputs.clone()
        changed[0, key] = (changed[0, key] + 7) % VOCAB
        shift = (model(dataclasses.replace(batch, inputs=changed)).hidden - before).abs().amax(-1)[0]
        assert [bool(value > 1e-9) for value in shift] == [bool(text.prefix[key]) or key <= q for q in range(size)]
    with torch.inference_mode():
        cache = model.cache()
        num_prefix = int(text.prefix.sum())
        states = [model.continue_with(batch.inputs[:, :num_prefix], cache)]
        states += [model.continue_with(batch.inputs[:, at : at + 1], cache) for at in range(num_prefix, size)]
    torch.testing.assert_close(torch.cat(states, 1), before, rtol=0, atol=1e-12)


def test_layers_with_a_window_see_that_many_tokens() -> None:
    model: TransformerModel = moved(stack("causal", windows=(3,)).build(VOCAB))
    batch = collate([Example(np.arange(3, 19), np.zeros(16, bool))], pad_id=0)
    before = model(batch).hidden
    changed = batch.inputs.clone()
    changed[0, 4] = 30
    shift = (model(dataclasses.replace(batch, inputs=changed)).hidden - before).abs().amax(-1)[0]
    # Two layers, each of which looks back two tokens.
    assert (shift > 1e-9).nonzero().flatten().tolist() == [4, 5, 6, 7, 8]


@pytest.mark.parametrize(
    ("parts", "reason"),
    [
        (lambda: EncoderDecoder(stack("causal"), stack("causal")), "encoder.visibility is 'causal'"),
        (lambda: EncoderDecoder(stack("bidirectional"), stack("bidirectional")), "decoder.visibility"),
        (lambda: EncoderDecoder(stack("bidirectional"), dataclasses.replace(stack("causal"), hidden_size=32)),
         "decoder.hidden_size is 32"),
        (lambda: both(parallel=True), "decoder.parallel"),
        (lambda: both().generator(0.5, 0.5), "cannot fill in tokens"),
        (lambda: stack("bidirectional", windows=(4,)), "windows is"),
        (lambda: stack("causal", parallel=True, norm="post"), "parallel"),
        (lambda: stack("causal", num_key_value_heads=3), "num_key_value_heads"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_refused(parts: object, reason: str) -> None:
    with pytest.raises(InputError, match=reason):
        parts()


def test_one_token_table_serves_both_sides() -> None:
    model: EncoderDecoderModel = both(positions=LearnedPositions(32)).build(VOCAB)
    names = [name for name, _ in model.named_parameters() if "tokens" in name]
    assert names == ["encoder.embeddings.tokens.weight"]
    assert model.table is model.encoder.embeddings.tokens.weight
