"""What holds for every recipe on disk, at test size: the file of a new recipe is enough to be tested here."""

import dataclasses
import json
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from elision import recipes
from elision.data.batch import Batch
from elision.data.store import Store
from elision.model.language_model import LanguageModel
from elision.recipe import Recipe
from elision.train import loop
from elision.train.checkpoint import State
from elision.train.loop import Run, fit
from tests import tiny

StoreOf = Callable[[Recipe], Store]
EXACT = {"dropout": 0.0, "attention_dropout": 0.0, "activation_dropout": 0.0}


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave out the measurement of the machine."""
    monkeypatch.setattr(loop, "matmul_peak", lambda device, dtype: 1e9)


def exact_model(recipe: Recipe, store: Store) -> LanguageModel:
    """Build a model in float64 whose biases and norms have moved, so that each of them can be seen to matter."""
    torch.manual_seed(0)
    model = tiny.model(recipe, store).double()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.05 * torch.randn_like(parameter)
    return model


def loss_of(model: LanguageModel, batch: Batch) -> Tensor:
    terms, _ = model(batch)
    return sum(term.sum * (term.weight / max(1, term.count)) for term in terms.values())


def batches(recipe: Recipe, store: Store, **settings: object) -> list[Batch]:
    return tiny.loader(recipe, store, **settings).microbatches(0)


@pytest.mark.parametrize("name", recipes.names())
def test_a_recipe_goes_to_json_and_back(name: str) -> None:
    recipe = recipes.get(name)
    assert recipe.name == name
    assert Recipe.from_dict(json.loads(json.dumps(recipe.to_dict()))) == recipe
    assert recipes.about(name)


@pytest.mark.parametrize("name", recipes.names())
def test_at_test_size_the_parts_are_the_same(name: str) -> None:
    recipe, small = recipes.get(name), tiny.recipe(name)
    for field in ("tokenizer", "segmenter", "noise", "backbone"):
        assert type(getattr(small, field)) is type(getattr(recipe, field))
    assert [type(objective) for objective in small.objectives] == [type(o) for o in recipe.objectives]
    assert type(small.train.optimizer) is type(recipe.train.optimizer)


@pytest.mark.parametrize("name", tiny.systems())
def test_one_batch_can_be_learned_by_heart(name: str, store_of: StoreOf) -> None:
    # A generator narrower than the model takes longer; a teacher without training, and smoothed labels, say other than the
    # text says.
    recipe = tiny.recipe(name, width=1.0, soft_weight=0.0, cosine_weight=0.0, label_smoothing=0.0, **EXACT)
    store = store_of(recipe)
    torch.manual_seed(0)
    model, (batch,) = tiny.model(recipe, store), batches(recipe, store)
    optimizer = torch.optim.Adam(model.parameters(), lr=5e-3)
    first = None
    for _ in range(200):
        loss = loss_of(model, batch)
        first = float(loss.detach()) if first is None else first
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    terms, _ = model(batch)
    for name_of_term, term in terms.items():
        assert float(term.sum.detach()) / term.count < 0.1, name_of_term
    assert first > 3


@pytest.mark.parametrize("name", tiny.systems())
def test_every_parameter_gets_a_gradient(name: str, store_of: StoreOf) -> None:
    recipe = tiny.recipe(name, **EXACT)
    store = store_of(recipe)
    model, (batch,) = exact_model(recipe, store), batches(recipe, store)
    loss_of(model, batch).backward()
    for name_of_parameter, parameter in model.named_parameters():
        # What only a task trains (ELMo's mix of layers) says so.
        if not parameter.requires_grad:
            continue
        assert parameter.grad is not None, name_of_parameter
        assert parameter.grad.abs().max() > 0, name_of_parameter


@pytest.mark.parametrize("name", tiny.systems())
def test_every_term_is_a_sum_and_the_count_it_announced(name: str, store_of: StoreOf) -> None:
    recipe = tiny.recipe(name, **EXACT)
    store = store_of(recipe)
    model = exact_model(recipe, store)
    (whole,) = batches(recipe, store)
    terms, _ = model(whole)
    assert {name: term.count for name, term in terms.items()} == model.counts(whole)
    # Sums add up over microbatches: the average of an average would not.
    parts = [model(batch)[0] for batch in batches(recipe, store, microbatch_size=3)]
    for name_of_term, term in terms.items():
        assert sum(part[name_of_term].count for part in parts) == term.count
        torch.testing.assert_close(sum(part[name_of_term].sum for part in parts), term.sum, rtol=1e-12, atol=1e-12)


def trained(recipe: Recipe, store: Store, folder, **settings: object) -> tuple[dict[str, Tensor], State]:
    """Train three steps in float64 by the real loop; returns the weights."""
    recipe.save(folder / "recipe.json")
    store.tokenizer.save(folder / "tokenizer")
    model = exact_model(recipe, store)
    run = Run(folder, model, recipe.train, tiny.loader(recipe, store, **settings), torch.device("cpu"))
    state = fit(run)
    return model.state_dict(), state


@pytest.mark.parametrize("name", tiny.systems())
def test_one_batch_of_eight_equals_four_microbatches_of_two(name: str, store_of: StoreOf, tmp_path) -> None:
    recipe = tiny.recipe(name, steps=3, eps=1e-6, **EXACT)
    store = store_of(recipe)
    whole, state = trained(recipe, store, tmp_path / "whole")
    for size in (2, 3):
        cut, cut_state = trained(recipe, store, tmp_path / str(size), microbatch_size=size)
        assert cut_state.tokens == state.tokens
        for tensor in whole:
            torch.testing.assert_close(cut[tensor], whole[tensor], rtol=0, atol=1e-12)


@pytest.mark.parametrize("name", tiny.systems())
def test_packed_equals_unpacked(name: str, store_of: StoreOf) -> None:
    recipe = tiny.without_memory(tiny.recipe(name, **EXACT))
    # Short examples, so that several share a row.
    recipe = dataclasses.replace(recipe, segmenter=tiny.shrunk(recipe.segmenter, max_length=9, short_probability=0.5))
    store = store_of(recipe)
    model = exact_model(recipe, store)
    # Wide enough for several of them, whatever a noise makes of their length.
    (packed,), (apart,) = (batches(recipe, store, **wide(recipe, store), packing=packing) for packing in (True, False))
    if packed.contiguous:
        # Each row is a stream of its own, with nothing to pack into it.
        assert packed.inputs.shape[0] == len(packed.examples) == apart.inputs.shape[0]
    else:
        assert packed.inputs.shape[0] < apart.inputs.shape[0]
    for one, other in zip(logits_by_example(model, packed), logits_by_example(model, apart)):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-12)
    ours, theirs = model(packed)[0], model(apart)[0]
    for term in ours:
        assert ours[term].count == theirs[term].count
        torch.testing.assert_close(ours[term].sum, theirs[term].sum, rtol=1e-12, atol=1e-12)


def wide(recipe: Recipe, store: Store, times: int = 3) -> dict[str, object]:
    """Return the loader's settings for rows that have room for several examples on either side."""
    answers = recipe.answers(store.tokenizer.vocabulary)
    if answers.decoder_row_length is not None:
        answers = dataclasses.replace(answers, decoder_row_length=times * answers.decoder_row_length)
    return {"row_length": max(30, times * recipe.row_length()), "answers": answers}


def logits_by_example(model: LanguageModel, batch: Batch) -> list[Tensor]:
    """Return the logits of every example [length, V], in the order of their indices in the data."""
    logits = model.logits(batch)
    found = []
    for index, place in zip(batch.examples, batch.summary_at.tolist()):
        row, column = divmod(place, batch.written_inputs.shape[1])
        here = batch.written_doc_ids[row] == batch.written_doc_ids[row, column]
        found.append((index, batch.written_inputs[row, here].tolist(), logits[row, here]))
    return [tensor for _, _, tensor in sorted(found, key=lambda item: item[:2])]


@pytest.mark.parametrize("name", tiny.systems())
def test_what_stands_in_empty_places_changes_nothing(name: str, store_of: StoreOf) -> None:
    recipe = tiny.without_memory(tiny.recipe(name, **EXACT))
    store = store_of(recipe)
    model = exact_model(recipe, store)
    (batch,) = batches(
        recipe, store, **(wide(recipe, store) if recipe.noise.restores == "sequence" else {"row_length": 30})
    )
    generator = torch.Generator().manual_seed(0)
    scribbled = batch
    for side in ("", "decoder_") if batch.decoder_inputs is not None else ("",):
        empty = getattr(batch, f"{side}doc_ids") == 0
        # Rows of streams are full.
        assert empty.any() != batch.contiguous
        inputs, positions = getattr(batch, f"{side}inputs"), getattr(batch, f"{side}positions")
        some = torch.randint(0, model.backbone.vocab_size, empty.shape, generator=generator)
        places = torch.randint(0, 30, empty.shape, generator=generator)
        changed = {
            f"{side}inputs": torch.where(empty, some, inputs),
            f"{side}positions": torch.where(empty, places, positions),
        }
        scribbled = dataclasses.replace(scribbled, **changed)
        assert torch.equal(changed[f"{side}inputs"], inputs) == batch.contiguous
    real = batch.written_doc_ids != 0
    torch.testing.assert_close(model.logits(scribbled)[real], model.logits(batch)[real], rtol=0, atol=1e-12)
    before, after = model(batch)[0], model(scribbled)[0]
    for term in before:
        torch.testing.assert_close(after[term].sum, before[term].sum, rtol=1e-12, atol=1e-12)


def may_see(recipe: Recipe, batch: Batch, row: int, query: int, key: int) -> bool:
    same = batch.doc_ids[row, query] == batch.doc_ids[row, key]
    if recipe.noise.restores == "neighbouring":
        return bool(same and batch.order[row, key] <= batch.order[row, query])
    if recipe.noise.restores == "permuted":
        # Only what is to be restored has a prediction, from what comes before it in the order.
        asked = batch.targets[row, query] >= 0
        return bool(same and asked and batch.order[row, key] < batch.order[row, query])
    prefixed = batch.prefix is not None and recipe.backbone.visibility == "prefix" and batch.prefix[row, key]
    return bool(same) and (recipe.backbone.visibility == "bidirectional" or key <= query or bool(prefixed))


def may_read(batch: Batch, row: int, query: int, key: int) -> bool:
    """Tell whether a place of the decoder may depend on a place of the encoder's side.

    What is unseen by the decoder is still seen by the rest of its text, which the decoder sees.
    """
    return bool(batch.decoder_doc_ids[row, query] == batch.doc_ids[row, key])


@pytest.mark.parametrize("name", tiny.systems())
@pytest.mark.parametrize("row_length", [24, 30])
def test_changing_a_token_moves_exactly_those_who_may_see_it(name: str, row_length: int, store_of: StoreOf) -> None:
    recipe = tiny.without_memory(tiny.recipe(name, **EXACT))
    recipe = dataclasses.replace(recipe, segmenter=tiny.shrunk(recipe.segmenter, max_length=12, short_probability=0.5))
    store = store_of(recipe)
    model = exact_model(recipe, store)
    room = {"row_length": row_length}
    if recipe.noise.restores == "sequence":
        room = wide(recipe, store, row_length // 12)
    (batch,) = batches(recipe, store, **room)
    written = batch.written_doc_ids
    sides = [("inputs", batch.doc_ids, may_see)]
    if batch.decoder_inputs is not None:
        sides = [
            ("decoder_inputs", written, lambda recipe, *place: may_see(recipe, *place)),
            ("inputs", batch.doc_ids, lambda recipe, *place: may_read(*place)),
        ]
    with torch.no_grad():
        before = model.backbone(batch).prediction
        for name_of_side, doc_ids, seen in sides:
            seen_in = batch.decoder_side if name_of_side == "decoder_inputs" else batch
            for key in range(doc_ids.shape[1]):
                changed = getattr(batch, name_of_side).clone()
                changed[:, key] = (changed[:, key] + 7) % model.backbone.vocab_size
                after = model.backbone(dataclasses.replace(batch, **{name_of_side: changed})).prediction
                moved = (after - before).abs().amax(-1)
                for row in range(len(moved)):
                    if doc_ids[row, key] == 0:
                        assert not moved[row, written[row] > 0].any()
                        continue
                    for query in range(moved.shape[1]):
                        # Rows of one side only hold values that mean nothing in empty places.
                        if len(sides) > 1 and written[row, query] == 0:
                            continue
                        if seen(recipe, seen_in, row, query, key):
                            assert moved[row, query] > 1e-9, (name_of_side, row, query, key)
                        else:
                            assert moved[row, query] == 0, (name_of_side, row, query, key)


@pytest.mark.parametrize("name", tiny.systems())
def test_causal_targets_are_never_visible_and_masked_ones_stand_for_what_is_hidden(
    name: str, store_of: StoreOf
) -> None:
    recipe = tiny.recipe(name)
    store = store_of(recipe)
    (batch,) = batches(recipe, store)
    rows, columns = (batch.targets >= 0).nonzero(as_tuple=True)
    assert len(rows) == batch.num_targets > 0
    if recipe.noise.restores == "next":
        inner = columns < batch.inputs.shape[1] - 1
        same = inner & (
            batch.doc_ids[rows, columns] == batch.doc_ids[rows, (columns + 1).clamp(max=batch.inputs.shape[1] - 1)]
        )
        assert torch.equal(batch.inputs[rows[same], columns[same] + 1], batch.targets[rows[same], columns[same]])
    elif recipe.noise.restores == "sequence":
        ids, read = batch.written_doc_ids, batch.written_inputs
        inner = (columns < read.shape[1] - 1) & (
            ids[rows, columns] == ids[rows, (columns + 1).clamp(max=read.shape[1] - 1)]
        )
        assert inner.any()
        assert torch.equal(read[rows[inner], columns[inner] + 1], batch.targets[rows[inner], columns[inner]])
    elif recipe.noise.restores == "neighbouring":
        words = store.tokenizer.vocabulary
        (ahead, back), (after, before) = batch.inputs.chunk(2, 1), batch.targets.chunk(2, 1)
        for read, target, begins, ends in (
            (ahead[:, 1:], after[:, :-1], words.bos, words.eos),
            (back[:, :-1], before[:, 1:], words.eos, words.bos),
        ):
            assert torch.equal(torch.where(read == begins, ends, read), target)
    elif recipe.noise.restores == "permuted":
        assert torch.equal(batch.inputs[rows, columns], batch.targets[rows, columns])
        # Each has a place of its own in the order, behind what is given.
        for order, target in zip(batch.order, batch.targets):
            assert len(order[target >= 0].unique()) == (target >= 0).sum()
        assert not (batch.order[rows, columns] % (recipe.noise.permute_length + 1) == 0).any()
    else:
        masked = batch.inputs[rows, columns] == store.tokenizer.vocabulary.mask
        assert masked.any()
        assert (batch.targets[rows, columns] != store.tokenizer.vocabulary.mask).all()


@pytest.mark.parametrize("name", tiny.systems())
def test_runs_of_one_seed_agree_bit_for_bit_and_of_two_seeds_differ(name: str, store_of: StoreOf, tmp_path) -> None:
    from elision.train.pretrain import prepare_run

    def weights(folder: str, seed: int) -> dict[str, Tensor]:
        recipe = tiny.recipe(name, steps=3, seed=seed, microbatch_size=3)
        run = prepare_run(recipe, store_of(recipe), tmp_path / folder)
        fit(run)
        # Without buffers: sines are the same in every run.
        return dict(run.model.named_parameters())

    first, again, other = weights("first", 1), weights("again", 1), weights("other", 2)
    assert all(torch.equal(first[tensor], again[tensor]) for tensor in first)
    matrices = [tensor for tensor in first if first[tensor].dim() > 1 and first[tensor].is_floating_point()]
    assert not any(torch.equal(first[tensor], other[tensor]) for tensor in matrices)
