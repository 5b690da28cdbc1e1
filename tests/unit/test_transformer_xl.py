"""Transformer-XL: streams, memory, the adaptive vocabulary, starting weights, and what is refused."""

import dataclasses
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

import elision
from elision import recipes
from elision.data.batch import Batch
from elision.data.loader import Loader
from elision.data.noise import NextToken
from elision.data.segment import Chunks, Streams
from elision.data.store import Store
from elision.errors import InputError
from elision.export.writing import write_folder
from elision.model.adaptive_softmax import cluster_sizes, cluster_widths
from elision.model.language_model import LanguageModel
from elision.model.relative import shifted
from elision.model.transformer_xl import TransformerXL, TransformerXLModel
from elision.objectives import AdaptiveLM, CausalLM
from elision.recipe import Recipe
from elision.show.cost import cost_of
from tests import tiny
from tests.unit.tasks import toy

StoreOf = Callable[[Recipe], Store]
VOCAB_SIZE = 40
SETTINGS = TransformerXL(num_layers=2, hidden_size=16, num_heads=2, feedforward_size=24, memory_length=6, dropout=0.0)
NARROWING = dataclasses.replace(SETTINGS, cutoffs=(10, 20), embedding_divisor=4)


def module(settings: TransformerXL = SETTINGS) -> TransformerXLModel:
    """Return a model in float64 whose every tensor has moved."""
    torch.manual_seed(0)
    model = settings.build(VOCAB_SIZE).double().eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.2 * torch.randn_like(parameter)
    return model


def batch_of(ids: Tensor, contiguous: bool = True) -> Batch:
    """Return rows of text with the next token as target, as a loader makes them of a stream; the last token only is one."""
    rows, length = ids[:, :-1].shape
    return Batch(
        inputs=ids[:, :-1],
        positions=torch.arange(length).expand(rows, -1),
        doc_ids=torch.ones(rows, length, dtype=torch.long),
        targets=ids[:, 1:],
        target_at=torch.arange(rows * length),
        summary_at=torch.arange(rows) * length,
        num_targets=rows * length,
        most_targets=length,
        num_examples=rows,
        num_tokens=rows * length,
        whole_rows=True,
        contiguous=contiguous,
    )


def some_ids(rows: int, length: int) -> Tensor:
    return torch.randint(0, VOCAB_SIZE, (rows, length), generator=torch.Generator().manual_seed(1))


# Streams


def test_the_chunks_of_streams_go_on_one_from_another_and_each_row_of_a_batch_with_itself(tmp_path: Path) -> None:
    words = tiny.vocabulary(40)
    made_with = tiny.tokenizer(tiny.BYTES)
    store = tiny.id_store(tmp_path / "store", made_with, [[[10, 11]], [[12, 13, 14]]])
    words = dataclasses.replace(words, eos=0)
    plan = Streams(max_length=2).plan(store.split("train"), words, seed=1, lookahead=1)
    assert plan.contiguous
    assert [plan.example(index).inputs.tolist() for index in range(len(plan))] == [
        [0, 10, 11],
        [11, 0, 12],
        [12, 13, 14],
    ]
    apart = Chunks(max_length=2).plan(store.split("train"), words, seed=1, lookahead=1)
    assert [apart.example(i).inputs.tolist() for i in range(len(apart))] == [[0, 10, 11], [11, 0, 12], [12, 13, 14]]
    assert not apart.contiguous
    loader = Loader(Streams(1).plan(store.split("train"), words, 1, 1), NextToken(), words, 1, 2, 2, 1)
    steps = [loader.microbatches(step)[0] for step in range(3)]
    assert all(batch.contiguous for batch in steps)
    assert torch.cat([batch.inputs for batch in steps], 1).tolist() == [[0, 10, 11], [0, 12, 13]]
    assert torch.cat([batch.targets for batch in steps], 1).tolist() == [[10, 11, 0], [12, 13, 14]]


# Scores by distance, memory


@pytest.mark.parametrize(("num_queries", "num_keys"), [(1, 1), (1, 5), (4, 4), (4, 9), (7, 8)])
def test_shifted_scores_equal_an_explicit_gather(num_queries: int, num_keys: int) -> None:
    num_distances = num_keys + num_queries - 1
    score = torch.randn(2, 3, num_queries, num_distances)
    # Row t of the distances is distance num_keys - 1 - t; query i stands at key num_keys - num_queries + i.
    i, j = torch.arange(num_queries)[:, None], torch.arange(num_keys)
    distance = num_keys - num_queries + i - j
    places = (num_keys - 1 - distance).expand(3, -1, -1)
    assert torch.equal(shifted(score, num_keys, None), score.gather(3, places.expand(2, -1, -1, -1)))
    assert torch.equal(shifted(score, num_keys, places), shifted(score, num_keys, None))


def test_each_layer_remembers_what_it_read_and_nothing_older_than_the_memory() -> None:
    model = module()
    ids = some_ids(2, 16)
    seen = []
    for block in model.blocks:
        block.register_forward_pre_hook(lambda block, args: seen.append(args[0]))
    first = model(batch_of(ids[:, :5]))
    assert torch.equal(first.carry["memory"], torch.stack(seen, 1))
    assert not first.carry["memory"].requires_grad
    seen.clear()
    second = model(batch_of(ids[:, 4:9]), first.carry)
    # Four tokens each, of which the last six stay.
    assert torch.equal(second.carry["memory"], torch.cat([first.carry["memory"], torch.stack(seen, 1)], 2)[:, :, -6:])
    seen.clear()
    third = model(batch_of(ids[:, 8:]), second.carry)
    assert torch.equal(third.carry["memory"], torch.stack(seen, 1)[:, :, -6:])


def test_the_memory_is_seen_by_all_and_gets_no_gradient() -> None:
    model = module()
    ids = some_ids(2, 9)
    carry = {"memory": torch.randn(2, 2, 6, 16, dtype=torch.float64)}
    before = model(batch_of(ids), carry).hidden
    for place in range(6):
        moved = carry["memory"].clone()
        moved[:, 0, place] += 1.0
        after = model(batch_of(ids), {"memory": moved}).hidden
        assert ((after - before).abs().amax(-1) > 1e-9).all(), place


def test_with_same_length_each_token_sees_exactly_that_many_tokens_wherever_it_stands() -> None:
    model = module(dataclasses.replace(SETTINGS, num_layers=1, same_length=True))
    ids = some_ids(1, 15)
    carry = {"memory": torch.randn(1, 1, 6, 16, dtype=torch.float64)}
    before = model(batch_of(ids), carry).hidden[0]
    moved_by = torch.zeros(14, 20, dtype=torch.bool)
    for key in range(20):
        changed, memory = ids.clone(), carry["memory"].clone()
        if key < 6:
            memory[0, 0, key] += 1.0
        else:
            changed[0, key - 6] = (changed[0, key - 6] + 7) % VOCAB_SIZE
        after = model(batch_of(changed), {"memory": memory}).hidden[0]
        moved_by[:, key] = (after - before).abs().amax(-1) > 1e-9
    distance = torch.arange(6, 20)[:, None] - torch.arange(20)
    assert torch.equal(moved_by, (distance >= 0) & (distance < 6))
    assert (moved_by.sum(1) == 6).all()


def test_no_memory_is_carried_between_batches_that_are_not_contiguous_or_where_none_is_wanted() -> None:
    ids = some_ids(2, 9)
    assert module()(batch_of(ids, contiguous=False)).carry is None
    assert module(dataclasses.replace(SETTINGS, memory_length=0))(batch_of(ids)).carry is None


def test_only_needed_places_of_the_last_layer_are_computed() -> None:
    model = module()
    batch = dataclasses.replace(batch_of(some_ids(2, 9)), needed_at=torch.tensor([3, 12]))
    whole, some = model(batch).hidden, model(batch, needed_only=True).hidden
    torch.testing.assert_close(some.flatten(0, 1)[batch.needed_at], whole.flatten(0, 1)[batch.needed_at])
    assert some.abs().sum((0, 2)).count_nonzero() == 2


# Reading on with a cache


@pytest.mark.parametrize(
    "changes",
    [{}, {"same_length": True}, {"clamp_distance": 4}, {"share_biases": False}, {"embedding_size": 12}, None],
    ids=str,
)
def test_reading_on_with_a_cache_equals_reading_all_at_once(changes: dict | None) -> None:
    model = module(NARROWING if changes is None else dataclasses.replace(SETTINGS, **changes))
    ids = some_ids(2, 150)
    with torch.no_grad():
        whole = model(batch_of(torch.cat([ids, ids[:, :1]], 1), contiguous=False)).hidden
        cache = model.cache()
        parts = [ids[:, :7], *ids[:, 7:90].split(1, 1), ids[:, 90:101], *ids[:, 101:].split(1, 1)]
        found = torch.cat([model.continue_with(part, cache) for part in parts], 1)
        assert cache.length == 150
        torch.testing.assert_close(found, whole, rtol=0, atol=1e-12)
        # Hypotheses change places.
        after = model.continue_with(ids[:, :1], cache)
        again = model.cache()
        model.continue_with(ids, again)
        again.reorder(torch.tensor([1, 1, 0]))
        other = model.continue_with(ids[:, :1][torch.tensor([1, 1, 0])], again)
        torch.testing.assert_close(other, after[torch.tensor([1, 1, 0])], rtol=0, atol=1e-12)


@pytest.mark.parametrize("same_length", [False, True])
def test_padding_on_the_left_changes_nothing(same_length: bool) -> None:
    model = module(dataclasses.replace(SETTINGS, same_length=same_length))
    ids = some_ids(3, 20)
    padding = torch.tensor([0, 3, 11])
    padded = torch.stack([row.roll(shift) for row, shift in zip(ids, padding.tolist())])
    with torch.no_grad():
        whole = model(batch_of(torch.cat([ids, ids[:, :1]], 1), contiguous=False)).hidden
        cache = model.cache(padding)
        found = torch.cat([model.continue_with(part, cache) for part in padded.split([14, 1, 1, 4], 1)], 1)
    for row, shift in enumerate(padding.tolist()):
        torch.testing.assert_close(found[row, shift:], whole[row, : 20 - shift], rtol=0, atol=1e-12)


# The vocabulary in clusters


def test_a_vocabulary_that_ends_before_a_cutoff_has_fewer_clusters() -> None:
    assert cluster_sizes((20_000, 40_000, 200_000), 267_735) == [20_000, 20_000, 160_000, 67_735]
    assert cluster_sizes((20_000, 40_000), 40_000) == [20_000, 20_000]
    assert cluster_sizes((20_000, 40_000), 9_000) == [9_000]
    assert cluster_sizes((), 257) == [257]
    assert cluster_widths(1024, 4, 4) == [1024, 256, 64, 16]
    assert cluster_widths(410, 1, 4) == [410] * 4


def test_no_cluster_without_a_target_is_left_without_a_gradient() -> None:
    torch.manual_seed(0)
    model = LanguageModel(NARROWING, (AdaptiveLM(),), VOCAB_SIZE)
    batch = batch_of(some_ids(2, 9) % 10)
    model(batch)[0]["clm"].sum.backward()
    missing = [name for name, parameter in model.named_parameters() if parameter.grad is None]
    assert not missing
    assert model.heads["clm"].projections["2"].weight.grad.abs().sum() == 0


def test_rare_words_cost_fewer_operations_than_one_softmax_over_all() -> None:
    adaptive, plain = recipes.get("transformer-xl-wt103-large"), recipes.get("transformer-xl-wt103-base")
    one_softmax = dataclasses.replace(plain, objectives=(CausalLM(bias=True),))
    assert cost_of(plain).flops_per_token < 0.7 * cost_of(one_softmax).flops_per_token
    narrow = dataclasses.replace(adaptive.backbone, embedding_divisor=1)
    wide = dataclasses.replace(adaptive, backbone=narrow, objectives=(AdaptiveLM(),))
    assert cost_of(adaptive).num_parameters < 0.6 * cost_of(wide).num_parameters


# Weights at the start, sizes


def test_weights_start_as_in_the_released_code() -> None:
    torch.manual_seed(0)
    settings = dataclasses.replace(
        NARROWING, hidden_size=256, feedforward_size=512, num_heads=4, embedding_divisor=2, share_biases=False
    )
    model = LanguageModel(settings, (AdaptiveLM(tied_projections="tails"),), 3000)
    for name, parameter in model.named_parameters():
        value = parameter.detach()
        if "norm" in name and name.endswith("weight"):
            assert value.mean() == pytest.approx(1.0, abs=0.01), name
            assert value.std() == pytest.approx(0.02, rel=0.2), name
        elif "projections" in name:
            assert value.std() == pytest.approx(0.01, rel=0.05), name
        elif name.endswith("bias"):
            assert not value.any(), name
        else:
            assert value.std() == pytest.approx(0.02, rel=0.2), name
            assert value.mean() == pytest.approx(0.0, abs=0.01), name


@pytest.mark.parametrize(
    ("name", "published", "exact"),
    [
        ("enwik8-base", 41e6, 41_082_625),
        ("enwik8-large", 277e6, 277_286_145),
        ("wt103-base", 151e6, 151_107_538),
        ("wt103-large", 285e6, 285_205_322),
        ("lm1b-large", 0.84e9, 841_354_862),
    ],
)
def test_published_sizes_have_as_many_parameters(name: str, published: float, exact: int) -> None:
    counted = cost_of(recipes.get(f"transformer-xl-{name}")).num_parameters
    assert counted == exact
    assert counted == pytest.approx(published, rel=0.01)


def test_embeddings_are_scaled_by_the_root_of_the_width() -> None:
    model = module(dataclasses.replace(SETTINGS, num_layers=1))
    read = []
    model.blocks[0].register_forward_pre_hook(lambda block, args: read.append(args[0]))
    ids = some_ids(1, 5)
    model(batch_of(ids))
    torch.testing.assert_close(read[0], 4 * model.embeddings.tokens.weight[ids[:, :-1]])


# What a memory is good for


def copying_stream(rows: int, length: int, lag: int, seed: int) -> Tensor:
    """Return texts in which each token is the one that stood `lag` places before: what came right before says nothing."""
    generator = torch.Generator().manual_seed(seed)
    start = torch.randint(0, VOCAB_SIZE, (rows, lag), generator=generator)
    return start.repeat(1, -(-length // lag))[:, :length]


def test_the_loss_falls_as_the_memory_grows() -> None:
    torch.manual_seed(0)
    segment, lag = 8, 12
    settings = dataclasses.replace(SETTINGS, hidden_size=32, num_layers=2, feedforward_size=64, memory_length=16)
    model = LanguageModel(settings, (CausalLM(),), VOCAB_SIZE)
    optimizer = torch.optim.Adam(model.parameters(), lr=6e-3)

    def losses(text: Tensor, learn: bool) -> float:
        carry, total, count = None, 0.0, 0
        for begin in range(0, text.shape[1] - 1, segment):
            terms, carry = model(batch_of(text[:, begin : begin + segment + 1]), carry)
            if learn:
                optimizer.zero_grad()
                (terms["clm"].sum / terms["clm"].count).backward()
                optimizer.step()
            # What stands before has been seen once by then.
            if begin >= 24:
                total, count = total + float(terms["clm"].sum.detach()), count + terms["clm"].count
        return total / count

    for epoch in range(10):
        losses(copying_stream(16, 97, lag, epoch), learn=True)
    model.eval()
    held_out = copying_stream(32, 97, lag, 1000)
    found = []
    for memory_length in (0, 4, 8, 16):
        model.backbone.settings = dataclasses.replace(settings, memory_length=memory_length)
        with torch.no_grad():
            found.append(losses(held_out, learn=False))
    assert found == sorted(found, reverse=True)
    assert found[0] > 4 and found[3] < 2.4
    # Twice the memory of training, in which each sees as many tokens as in training: no worse.
    model.backbone.settings = dataclasses.replace(settings, memory_length=32, clamp_distance=24)
    with torch.no_grad():
        assert losses(held_out, learn=False) < found[2]


@pytest.fixture(scope="module")
def untrained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return toy.untrained(tmp_path_factory.mktemp("transformer-xl") / "model", "transformer-xl-tiny")


# What is refused


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"hidden_size": 15}, "hidden_size 15 is not an even multiple of num_heads 2"),
        ({"memory_length": -1}, "memory_length is -1"),
        ({"memory_length": 0, "same_length": True}, "same_length is True, but memory_length is 0"),
        ({"clamp_distance": 0}, "clamp_distance is 0"),
        ({"cutoffs": (20, 10)}, "cutoffs is (20, 10)"),
        ({"embedding_divisor": 4}, "embedding_divisor is 4, but cutoffs is empty"),
        ({"dropout": 1.0}, "dropout is 1.0"),
    ],
)
def test_settings_that_cannot_be_are_refused(changes: dict, reason: str) -> None:
    with pytest.raises(InputError) as refusal:
        dataclasses.replace(SETTINGS, **changes)
    assert reason in str(refusal.value)


def test_a_memory_over_shuffled_chunks_is_refused() -> None:
    with pytest.raises(
        InputError, match="memory_length is 128, but the examples of Chunks do not go on one from another"
    ):
        dataclasses.replace(recipes.get("transformer-xl-tiny"), segmenter=Chunks(128))


def test_heads_that_do_not_fit_the_embeddings_are_refused() -> None:
    for objective, settings, reason in (
        (AdaptiveLM(cutoffs=(5,)), NARROWING, "tables are tied to embeddings with backbone.cutoffs (10, 20)"),
        (AdaptiveLM(tied_projections="all"), SETTINGS, "have no projections"),
        (AdaptiveLM(), tiny.recipe("gpt2-tiny").backbone, "embeddings of Transformer are not cut into clusters"),
    ):
        with pytest.raises(InputError) as refusal:
            LanguageModel(settings, (objective,), VOCAB_SIZE)
        assert reason in str(refusal.value)
    with pytest.raises(InputError, match="which only AdaptiveLM scores words by"):
        LanguageModel(NARROWING, (CausalLM(),), VOCAB_SIZE)(batch_of(some_ids(1, 5)))


def test_an_adaptive_softmax_goes_over_gpt2_too() -> None:
    torch.manual_seed(0)
    backbone = dataclasses.replace(tiny.recipe("gpt2-tiny").backbone, dropout=0.0)
    model = LanguageModel(backbone, (AdaptiveLM(cutoffs=(10, 20)),), VOCAB_SIZE).eval()
    batch = batch_of(some_ids(2, 9), contiguous=False)
    term = model(batch)[0]["clm"]
    scores = model.logits(batch)
    torch.testing.assert_close(scores.exp().sum(-1), torch.ones(2, 8))
    torch.testing.assert_close(term.sum, -scores.gather(2, batch.targets[..., None]).sum())


def test_an_export_is_refused_with_the_reason(untrained: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no class for Transformer-XL"):
        write_folder(elision.load(untrained), tmp_path / "out")
    assert not (tmp_path / "out").exists()
    folder = tmp_path / "gpt2"
    toy.untrained(folder, "gpt2-tiny")
    recipe = Recipe.load(folder / "recipe.json")
    dataclasses.replace(recipe, objectives=(AdaptiveLM(cutoffs=(100,)),)).save(folder / "recipe.json")
    with pytest.raises(InputError, match="no class with an adaptive softmax"):
        recipe = Recipe.load(folder / "recipe.json")
        from elision.export import families

        families.of_recipe(recipe, ("clm",))


def test_logits_of_a_loaded_model_heed_padding_on_the_left(untrained: Path) -> None:
    loaded = elision.load(untrained, dtype=torch.float64)
    ids = np.arange(12)[None] + 20
    padded = np.concatenate([np.zeros((1, 5), int), ids], 1)
    real = np.arange(17)[None] >= 5
    found = loaded.logits(padded, visible=real)[:, 5:]
    torch.testing.assert_close(found, loaded.logits(ids), rtol=0, atol=1e-12)
