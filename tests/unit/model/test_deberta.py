"""DeBERTa's model: the mask decoder by plain loops, what each reader pays for, and the convolution."""

import dataclasses
import math

import pytest
import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from elision.data.batch import Batch, collate
from elision.data.example import NO_TARGET, Example
from elision.errors import InputError
from elision.model.deberta import DECODER_STEPS, Deberta, DebertaModel
from elision.model.language_model import LanguageModel
from elision.model.position import LearnedPositions
from elision.objectives import Classification, MaskedLM, ReplacedTokens
from elision.objectives.generator import Generator
from tests import tiny

VOCAB_SIZE = 40
V1 = Deberta(
    num_layers=3,
    hidden_size=16,
    num_heads=2,
    feedforward_size=24,
    max_distance=8,
    positions=LearnedPositions(12),
    dropout=0.0,
    attention_dropout=0.0,
)
V2 = dataclasses.replace(V1, num_buckets=4, share_projections=True, distance_norm=True, key_bias=True, convolution=3)
V3 = dataclasses.replace(V2, convolution=0, mask_decoder=False)


def model_of(settings: Deberta) -> DebertaModel:
    """Return a model in float64 whose every tensor is random."""
    torch.manual_seed(0)
    model = settings.build(VOCAB_SIZE).double()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.3 * torch.randn_like(parameter)
    return model.eval()


def example(length: int, seed: int, targets: tuple[int, ...] = ()) -> Example:
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(6, VOCAB_SIZE, (length,), generator=generator).numpy()
    restored = torch.full((length,), NO_TARGET).numpy()
    restored[list(targets)] = ids[list(targets)]
    return Example(ids, ids < 0, targets=restored, label=None)


def batch_of(*examples: Example, row_length: int | None = None) -> Batch:
    return collate(examples, pad_id=0, row_length=row_length, packing=row_length is not None)


def prediction(model: DebertaModel, batch: Batch, needed_only: bool = True) -> Tensor:
    with torch.no_grad():
        return model(batch, needed_only=needed_only).prediction


def hidden(model: DebertaModel, batch: Batch) -> Tensor:
    with torch.no_grad():
        return model(batch).hidden


@pytest.mark.parametrize("settings", [V1, V2], ids=["version 1", "version 2"])
def test_the_mask_decoder_by_plain_loops(settings: Deberta) -> None:
    model = model_of(settings)
    batch = batch_of(example(7, 1, targets=(2, 5)), example(9, 2, targets=(0, 1, 8)))
    decoded = prediction(model, batch)
    size = settings.hidden_size // settings.num_heads
    below = model_below(model, settings, batch)
    block = model.blocks[-1]
    attention = block.attention
    weights = attention.query_key_value.weight.chunk(3)
    if settings.key_bias:
        biases = attention.query_key_value.bias.chunk(3)
    else:
        biases = (attention.query_bias, torch.zeros(16).double(), attention.value_bias)
    table = model._distances(9, below)
    keys = table.vectors_RD @ weights[1].T + biases[1] if settings.share_projections else None
    queries = table.vectors_RD @ weights[0].T + biases[0] if settings.share_projections else None
    keys = attention.position_key(table.vectors_RD) if keys is None else keys
    queries = attention.position_query(table.vectors_RD) if queries is None else queries
    seen = torch.zeros_like(decoded)
    with torch.no_grad():
        for row, length in enumerate((7, 9)):
            states = below[row, :length]
            for place in range(length):
                if batch.targets[row, place] < 0:
                    continue
                # Z = H^(n-1) + absolute positions; keys and values are of H^(n-1) each time.
                running = states[place] + model.mask_positions.table.weight[place]
                for _ in range(2):
                    query = running @ weights[0].T + biases[0]
                    mixed = torch.zeros(16).double()
                    for head in range(settings.num_heads):
                        part = slice(head * size, (head + 1) * size)
                        scores = []
                        for other in range(length):
                            key = (states[other] @ weights[1].T + biases[1])[part]
                            at = int(table.rows_N[place - other + 8])
                            score = query[part] @ key + query[part] @ keys[at, part] + key @ queries[at, part]
                            scores.append(score / math.sqrt(3 * size))
                        weight = torch.stack(scores).softmax(0)
                        values = (states @ weights[2].T + biases[2])[:, part]
                        mixed[part] = weight @ values
                    running = block.norm_after_attention(running + attention.output(mixed))
                    running = block.norm_after_feedforward(running + block.feedforward(running))
                seen[row, place] = running
    torch.testing.assert_close(decoded, seen, rtol=0, atol=1e-10)


def model_below(model: DebertaModel, settings: Deberta, batch: Batch) -> Tensor:
    """Return what the last block reads, [B, T, D]."""
    read: list[Tensor] = []
    handle = model.blocks[-1].register_forward_pre_hook(lambda block, given: read.append(given[0]))
    hidden(model, batch)
    handle.remove()
    return read[0].detach()


@pytest.mark.parametrize("settings", [V1, V2], ids=["version 1", "version 2"])
def test_where_there_are_targets_the_decoder_says_what_it_says_everywhere_and_nothing_elsewhere(
    settings: Deberta,
) -> None:
    model = model_of(settings)
    batch = batch_of(example(5, 1, targets=(2,)), example(4, 2, targets=(0, 3)), example(7, 3), row_length=10)
    some, everywhere = prediction(model, batch), prediction(model, batch, needed_only=False)
    there = batch.targets >= 0
    torch.testing.assert_close(some[there], everywhere[there], rtol=0, atol=1e-12)
    assert not some[~there].any() and (everywhere != 0).any(-1).all()


def test_predictions_and_states_are_two_things_with_a_mask_decoder_and_one_without() -> None:
    batch = batch_of(example(7, 1, targets=(2, 5)))
    for settings, same in ((V1, False), (V2, False), (V3, True)):
        model = model_of(settings)
        assert torch.equal(prediction(model, batch, needed_only=False), hidden(model, batch)) is same


def test_the_mask_decoder_adds_a_position_table_and_no_other_weight() -> None:
    with_one, without = (
        {
            name: tensor.shape
            for name, tensor in dataclasses.replace(V1, mask_decoder=wanted).build(30).state_dict().items()
        }
        for wanted in (True, False)
    )
    assert with_one == without | {"mask_positions.table.weight": torch.Size([12, 16])}


def test_absolute_positions_reach_predictions_through_their_table_alone_and_states_not_at_all() -> None:
    model, batch = model_of(V1), batch_of(example(7, 1, targets=(2, 5)))
    moved = dataclasses.replace(batch, positions=batch.positions + 4)
    assert torch.equal(hidden(model, moved), hidden(model, batch))
    assert (prediction(model, moved) - prediction(model, batch)).abs().max() > 1e-3
    with torch.no_grad():
        model.mask_positions.table.weight.zero_()
    assert torch.equal(prediction(model, moved), prediction(model, batch))


@pytest.mark.parametrize("settings", [V1, V2, V3], ids=["version 1", "version 2", "version 3"])
def test_a_text_has_the_same_states_wherever_it_lies_in_a_row(settings: Deberta) -> None:
    model, text = model_of(settings), example(5, 1, targets=(1, 3))
    alone = batch_of(text)
    for before in (1, 3, 6):
        packed = batch_of(example(before + 5, 2), text, row_length=before + 10)
        at = packed.summary_at[packed.examples.index(1)]
        for read in (hidden, lambda model, batch: prediction(model, batch, needed_only=False)):
            there = read(model, packed).flatten(0, 1)[at : at + 5]
            torch.testing.assert_close(there, read(model, alone)[0], rtol=0, atol=1e-12)


def test_each_outcome_of_the_last_block_is_computed_when_it_is_read_and_once() -> None:
    model, batch = model_of(V1), batch_of(example(7, 1, targets=(2, 5)))
    calls: list[bool] = []
    model.blocks[-1].register_forward_hook(
        lambda block, given, named, out: calls.append(named.get("asking") is not None), with_kwargs=True
    )
    output = model(batch, needed_only=True)
    assert calls == []
    assert output.prediction is output.prediction and calls == [True]
    assert output.hidden is output.hidden and calls == [True, False]


@pytest.mark.parametrize(
    ("objective", "decodes"), [(MaskedLM(), True), (Classification(num_labels=2), False)], ids=["pretrain", "classify"]
)
def test_pretraining_pays_for_the_decoder_and_fine_tuning_for_the_last_block(
    objective: MaskedLM | Classification, decodes: bool
) -> None:
    model = LanguageModel(V1, (objective,), VOCAB_SIZE)
    batch = batch_of(example(7, 1, targets=(2, 5)))
    batch = dataclasses.replace(batch, labels=torch.tensor([1]))
    calls: list[bool] = []
    model.backbone.blocks[-1].register_forward_hook(
        lambda block, given, named, out: calls.append(named.get("asking") is not None), with_kwargs=True
    )
    model(batch)
    assert calls == [decodes]


def test_the_convolution_by_plain_loops_stops_at_the_ends_of_documents() -> None:
    for width in (3, 5):
        settings = dataclasses.replace(V2, convolution=width)
        layer = model_of(settings).convolution
        embedded, states = (torch.randn(2, 6, 16, dtype=torch.float64) for _ in range(2))
        documents = torch.tensor([[1, 1, 1, 2, 2, 2], [1, 1, 1, 1, 0, 0]])
        with torch.no_grad():
            out = layer(embedded, states, documents)
            for row in range(2):
                for place in range(6):
                    total = layer.bias.clone()
                    for tap in range(width):
                        other = place + tap - width // 2
                        if 0 <= other < 6 and documents[row, other] == documents[row, place]:
                            total += layer.weight[:, :, tap] @ embedded[row, other]
                    expected = layer.norm(states[row, place] + torch.nn.functional.gelu(total))
                    torch.testing.assert_close(out[row, place], expected, rtol=0, atol=1e-12)


def test_weights_start_normal_with_biases_zero_and_norms_one() -> None:
    torch.manual_seed(0)
    model = dataclasses.replace(V2, hidden_size=64, feedforward_size=256, max_distance=64, num_buckets=32).build(500)
    for name, value in model.state_dict().items():
        if "norm" in name:
            assert (value == (1 if name.endswith("weight") else 0)).all(), name
        elif name.endswith("bias"):
            assert not value.any(), name
        else:
            assert value.std() == pytest.approx(0.02, rel=0.1) and abs(value.mean()) < 0.002, name


def rtd_model() -> LanguageModel:
    generator = Generator(width=1.0, depth=0.5, sharing="disentangled")
    objective = ReplacedTokens(generator=generator, weight=10.0, reads_summary=True)
    torch.manual_seed(0)
    return LanguageModel(V3, (objective,), VOCAB_SIZE).double()


def test_at_the_start_the_judge_reads_the_token_table_of_its_generator() -> None:
    model = rtd_model()
    generator = model.heads["rtd"].generator.model
    assert not model.backbone.embeddings.tokens.weight.any()
    assert torch.equal(model.backbone.table, generator.table)
    assert torch.equal(model.backbone.standalone_state()["embeddings.tokens.weight"], generator.table)
    assert generator.settings.mask_decoder and generator.mask_positions is not None
    assert len(generator.blocks) == 2 and generator.settings.hidden_size == 16


def test_the_loss_of_the_judge_leaves_every_weight_of_the_generator_alone_and_trains_the_difference() -> None:
    model = rtd_model()
    batch = batch_of(example(7, 1, targets=(2, 5)), example(9, 2, targets=(0, 1, 8)))
    terms, _ = model(batch)
    terms["rtd"].sum.backward(retain_graph=True)
    for name, parameter in model.heads["rtd"].generator.named_parameters():
        assert parameter.grad is None, name
    assert model.backbone.embeddings.tokens.weight.grad.abs().max() > 0
    terms["generator"].sum.backward()
    assert model.heads["rtd"].generator.model.embeddings.tokens.weight.grad.abs().max() > 0


def test_flops_count_the_products_of_a_forward_pass() -> None:
    settings = dataclasses.replace(
        V1, hidden_size=128, feedforward_size=512, num_layers=4, positions=LearnedPositions(256), max_distance=256
    )
    for mask_decoder in (False, True):
        settings = dataclasses.replace(settings, mask_decoder=mask_decoder)
        model = settings.build(VOCAB_SIZE).eval().requires_grad_(False)
        texts = [example(256, n, targets=tuple(range(0, 256, 8))) for n in range(4)]
        batch = batch_of(*texts)
        with FlopCounterMode(display=False) as counter:
            _ = model(batch, needed_only=True).prediction
        stated = settings.flops_per_token(256) * batch.num_tokens
        stated -= settings.skippable_flops * (batch.num_tokens - len(batch.needed_at))
        # Blocks meet some distances that no pair of their tokens has, and the table is projected too.
        assert stated <= counter.get_total_flops() <= 1.35 * stated


def test_flops_of_the_last_block_are_left_out_at_places_that_nobody_reads() -> None:
    for settings, steps in ((V1, DECODER_STEPS), (V3, 1)):
        queries = 16 * 16 if settings.mask_decoder else 0
        assert settings.skippable_flops == 2 * steps * (queries + 16 * 16 + 2 * 16 * 24)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"num_heads": 3}, "hidden_size 16 is not a multiple of num_heads 3"),
        ({"num_layers": 0}, "num_layers is 0"),
        ({"num_buckets": 14}, "num_buckets is 14: give a number from 4 to below 14"),
        ({"num_buckets": 2}, "num_buckets is 2"),
        ({"convolution": 4}, "convolution is 4: give an odd width"),
        ({"convolution": 3, "num_layers": 1}, "at least 2 blocks"),
        ({"dropout": 1.0}, "dropout is 1.0"),
    ],
)
def test_settings_out_of_range_are_named(settings: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        dataclasses.replace(V1, **settings)


def test_only_the_mask_decoder_limits_how_long_a_text_can_be() -> None:
    assert V1.max_length == 12 and V3.max_length is None
    V3.check_length(100_000)
    with pytest.raises(InputError, match="13 tokens is longer than the position table of 12"):
        V1.check_length(13)
    assert hidden(model_of(V3), batch_of(example(40, 1))).shape == (1, 40, 16)


def test_a_generator_as_wide_as_the_embeddings_is_the_only_one_there_is() -> None:
    assert V3.generator(1.0, 0.5) == dataclasses.replace(V3, num_layers=2, mask_decoder=True)
    assert V2.generator(1.0, 0.1).convolution == 0
    with pytest.raises(InputError, match=r"generator.width is 0.25"):
        V3.generator(0.25, 1.0)


def test_at_test_size_the_versions_differ_as_published() -> None:
    one, two, three = (tiny.recipe(f"deberta{version}-tiny").backbone for version in ("", "-v2", "-v3"))
    assert (one.num_table_rows, two.num_table_rows, three.num_table_rows) == (1024, 512, 512)
    assert dataclasses.replace(two, convolution=0, mask_decoder=False) == three
    assert one.num_terms == two.num_terms == three.num_terms == 2
