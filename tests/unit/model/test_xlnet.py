"""XLNet: who sees whom in two streams, what the memory carries, and what is left out of the work."""

import dataclasses
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

from elision import recipes
from elision.data.batch import Batch, collate
from elision.data.example import NO_TARGET, Example
from elision.data.noise import PermutationMask
from elision.data.segment import Chunks, FullSentences, Segmenter, SentencePairs
from elision.data.store import Store
from elision.errors import InputError
from elision.model.backbone import Output
from elision.model.language_model import LanguageModel
from elision.model.visibility import permuted
from elision.model.xlnet import XLNet, XLNetModel, grid
from elision.objectives import Classification, MaskedLM, NextSentence, PermutationLM
from elision.recipe import Recipe
from elision.show.cost import cost_of
from elision.text.vocabulary import Vocabulary
from tests import tiny

StoreOf = Callable[[Recipe], Store]
VOCAB_SIZE = 60
SETTINGS = XLNet(num_layers=3, hidden_size=16, num_heads=2, feedforward_size=24, dropout=0.0, attention_dropout=0.0)
WORDS = Vocabulary(VOCAB_SIZE, np.arange(VOCAB_SIZE) < 7, np.zeros(VOCAB_SIZE, bool), mask=6)
LENGTH, HALF = 16, 8
NOISE = PermutationMask(rate=0.4, permute_length=HALF)


def module(settings: XLNet = SETTINGS) -> XLNetModel:
    """Return a model in float64 whose every tensor has moved."""
    torch.manual_seed(0)
    model = settings.build(VOCAB_SIZE).double().eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.2 * torch.randn_like(parameter)
    return model


def example(seed: int, length: int = LENGTH) -> Example:
    """Return a permuted example with symbols, that tell three segments apart."""
    rng = np.random.default_rng(seed)
    special = np.isin(np.arange(length), [length - 5, length - 2, length - 1])
    types = np.repeat([0, 1, 2], [length - 4, 3, 1])
    return NOISE(Example(rng.integers(7, VOCAB_SIZE, length), special, type_ids=types), WORDS, rng)


def batch_of(*examples: Example, **settings: object) -> Batch:
    return collate(list(examples), pad_id=5, **({"packing": False} | settings))


def blocked(example: Example, query: int, key: int) -> bool:
    """Tell whether `query` may not see `key`: the rules of the released code, token by token, from classes and ranks."""
    if query // HALF != key // HALF:
        return query // HALF < key // HALF

    def kind(place: int) -> str:
        if example.targets[place] != NO_TARGET:
            return "target"
        return "functional" if example.special[place] or example.order[place] % (HALF + 1) else "plain"

    def rank(place: int) -> int:
        return int(example.order[place]) % (HALF + 1) - 1

    reverse = -1 if kind(key) == "plain" else rank(key)
    itself = rank(query) if kind(query) == "target" else (-1 if kind(query) == "plain" else rank(query)) + 1
    return kind(key) != "plain" and itself <= reverse


def test_both_masks_are_those_of_the_rules_token_by_token() -> None:
    examples = [example(seed) for seed in range(20)]
    batch = batch_of(*examples)
    content, query = permuted(batch).mask[:, 0], permuted(batch, itself=False).mask[:, 0]
    num_targets = 0
    for row, drawn in enumerate(examples):
        for i in range(LENGTH):
            for j in range(LENGTH):
                # The content stream opens the diagonal.
                assert content[row, i, j] == (i == j or not blocked(drawn, i, j)), (row, i, j)
                if drawn.targets[i] != NO_TARGET:
                    assert query[row, i, j] == (not blocked(drawn, i, j)), (row, i, j)
                    num_targets += i == j
    assert num_targets == batch.num_targets > 40


def test_plain_tokens_see_all_plain_ones_and_targets_only_what_comes_before_them() -> None:
    """The consequences that the rules are there for, in words of their own."""
    drawn = example(1)
    content = permuted(batch_of(drawn)).mask[0, 0]
    target = drawn.targets != NO_TARGET
    plain = ~target & (drawn.order % (HALF + 1) == 0)
    functional = ~target & ~plain
    assert plain.sum() > 4 and target.sum() > 4 and functional.sum() >= 3
    for begin in (0, HALF):
        here = np.zeros(LENGTH, bool)
        here[begin : begin + HALF] = True
        seen = content.numpy()
        assert seen[np.ix_(plain & here, plain & here)].all()
        assert not seen[np.ix_(plain & here, ~plain & here)].any()
        assert seen[np.ix_(~plain & here, plain & here)].all()
        # Behind the plain ones everybody has a rank of his own.
        order = drawn.order[~plain & here]
        assert len(set(order)) == len(order)
        among = seen[np.ix_(~plain & here, ~plain & here)]
        assert (among == (order[:, None] >= order[None, :])).all()
    assert not content[:HALF, HALF:].any() and content[HALF:, :HALF].all()


def change(batch: Batch, place: int) -> Batch:
    inputs = batch.inputs.clone()
    inputs[:, place] = (inputs[:, place] - 7 + 11) % (VOCAB_SIZE - 7) + 7
    return dataclasses.replace(batch, inputs=inputs)


def moved(model: XLNetModel, batch: Batch, place: int) -> tuple[Tensor, Tensor]:
    """Return bool [T] for the content and the query stream: what moves in row 0 when one of its tokens changes."""
    with torch.no_grad():
        before, after = model(batch), model(change(batch, place))
    return tuple(
        (getattr(after, name) - getattr(before, name))[0].abs().amax(-1) > 0 for name in ("hidden", "prediction")
    )


@pytest.mark.parametrize("seed", [2, 3])
def test_a_query_is_unchanged_by_its_own_token_and_by_targets_later_in_the_order(seed: int) -> None:
    drawn, model = example(seed), module()
    batch = batch_of(drawn)
    targets = np.flatnonzero(drawn.targets != NO_TARGET)
    for place in targets:
        _, query = moved(model, batch, int(place))
        for asked in targets:
            assert query[asked] == (drawn.order[place] < drawn.order[asked]), (place, asked)


@pytest.mark.parametrize("seed", [2, 3])
def test_plain_content_is_unchanged_by_targets_of_the_same_half(seed: int) -> None:
    drawn, model = example(seed), module()
    batch = batch_of(drawn)
    plain = (drawn.targets == NO_TARGET) & (drawn.order % (HALF + 1) == 0)
    places = np.arange(LENGTH)
    for place in np.flatnonzero(drawn.targets != NO_TARGET):
        content, _ = moved(model, batch, int(place))
        assert content[place]
        assert not content[plain & (places // HALF == place // HALF)].any()


def test_the_first_half_is_independent_of_the_second() -> None:
    drawn, model = example(4), module()
    for place in range(HALF, LENGTH):
        content, query = moved(model, batch_of(drawn), place)
        assert not content[:HALF].any() and not query[:HALF].any()
        assert content[place]


def test_two_texts_in_sequence_with_memory_equal_one_pass_in_which_the_first_cannot_see_the_second() -> None:
    model = module(dataclasses.replace(SETTINGS, memory_length=LENGTH))
    first, second = (example(seed) for seed in (5, 6))
    # Memory counts as of the first segment, and so does all of this text.
    first, second = (dataclasses.replace(each, type_ids=np.zeros(LENGTH, int)) for each in (first, second))
    sequence = [batch_of(each, contiguous=True) for each in (first, second)]
    with torch.no_grad():
        one = model(sequence[0])
        two = model(sequence[1], one.carry)
    joined = Example(
        np.concatenate([first.inputs, second.inputs]),
        np.concatenate([first.special, second.special]),
        type_ids=np.zeros(2 * LENGTH, int),
        # What has a higher number is not seen by what has a lower one, and all of the lower ones are seen.
        order=np.concatenate([first.order, second.order + 1000]),
        targets=np.concatenate([first.targets, second.targets]),
    )
    with torch.no_grad():
        whole = model(batch_of(joined))
    for name in ("hidden", "prediction"):
        expected = getattr(whole, name)
        torch.testing.assert_close(getattr(one, name), expected[:, :LENGTH], rtol=0, atol=1e-12)
        torch.testing.assert_close(getattr(two, name), expected[:, LENGTH:], rtol=0, atol=1e-12)


def test_no_gradient_reaches_the_memory() -> None:
    model = module(dataclasses.replace(SETTINGS, memory_length=LENGTH))
    first, second = (batch_of(example(seed), contiguous=True) for seed in (7, 8))
    read = model.embeddings(first).detach().requires_grad_()
    carry = model(first, embedded=read).carry
    output = model(second, carry, embedded=model.embeddings(second))
    output.prediction.square().sum().backward()
    assert read.grad is None and not carry["memory"].requires_grad
    assert model.blocks[0].attention.key_value.weight.grad.abs().max() > 0


def test_the_memory_holds_what_each_layer_read_of_the_reused_tokens_and_forgets_the_oldest() -> None:
    settings = dataclasses.replace(SETTINGS, memory_length=10, reuse_length=HALF)
    model = module(settings)
    drawn = [batch_of(example(seed), example(seed + 10), contiguous=True) for seed in (1, 2, 3)]
    carry, embedded = None, []
    for step, batch in enumerate(drawn):
        with torch.no_grad():
            carry = model(batch, carry).carry
            embedded.append(model.embeddings(batch)[:, :HALF])
        assert carry["memory"].shape == (2, 3, min(10, HALF * (step + 1)), 16)
        # The first layer reads the embeddings themselves.
        expected = torch.cat(embedded, 1)[:, -10:]
        torch.testing.assert_close(carry["memory"][:, 0], expected, rtol=0, atol=0)


def test_only_contiguous_batches_leave_a_memory() -> None:
    model = module(dataclasses.replace(SETTINGS, memory_length=10))
    assert model(batch_of(example(1))).carry is None
    assert model(batch_of(example(1), contiguous=True)).carry is not None
    assert module()(batch_of(example(1), contiguous=True)).carry is None


@pytest.mark.parametrize("side", ["left", "right"])
def test_padding_on_either_side_leaves_the_states_of_real_tokens_unchanged(side: str) -> None:
    drawn, model = example(8), module()
    alone = batch_of(drawn)
    width, pad = LENGTH + 5, slice(0, 5) if side == "left" else slice(LENGTH, None)
    here = np.setdiff1d(np.arange(width), np.arange(width)[pad])

    def laid(values: np.ndarray, empty: int) -> Tensor:
        row = np.full((1, width), empty, np.int64)
        row[0, here] = values
        return torch.from_numpy(row)

    targets = laid(drawn.targets, NO_TARGET)
    padded = dataclasses.replace(
        alone,
        inputs=laid(drawn.inputs, 5),
        positions=torch.zeros(1, width, dtype=torch.long),
        doc_ids=laid(np.ones(LENGTH, int), 0),
        type_ids=laid(drawn.type_ids, 0),
        order=laid(drawn.order, 0),
        targets=targets,
        target_at=(targets[0] != NO_TARGET).nonzero()[:, 0],
        needed_at=None,
        whole_rows=False,
    )
    with torch.no_grad():
        expected, found = model(alone), model(padded)
    torch.testing.assert_close(found.hidden[:, here], expected.hidden, rtol=0, atol=1e-12)
    torch.testing.assert_close(found.prediction[:, here], expected.prediction, rtol=0, atol=1e-12)


def test_with_all_tokens_as_targets_in_their_own_order_the_loss_is_that_of_a_causal_language_model() -> None:
    """The content stream below what it restores is that of a causal model: a second computation, stream by stream."""
    model = module()
    objective = PermutationLM()
    head = objective.head(model).double()
    ids = np.random.default_rng(0).integers(7, VOCAB_SIZE, LENGTH)
    everything = Example(ids, np.zeros(LENGTH, bool), order=np.arange(1, LENGTH + 1), targets=ids)
    batch = batch_of(everything)
    with torch.no_grad():
        (term,) = objective.after(head, model, model(batch, needed_only=True), batch).values()
        # Each token is asked for alone, from a text that ends right before it: nothing else is there to be seen.
        total = 0.0
        for place in range(LENGTH):
            prefix = Example(
                np.append(ids[:place], 7),
                np.zeros(place + 1, bool),
                order=np.arange(1, place + 2),
                targets=np.append(np.full(place, NO_TARGET), ids[place]),
            )
            single = batch_of(prefix)
            (part,) = objective.after(head, model, model(single), single).values()
            total += float(part.sum)
            causal = collate([dataclasses.replace(prefix, order=None)], pad_id=5)
            triangle = torch.ones(1, place + 1, place + 1, dtype=torch.bool).tril()
            content = model(causal, visible=triangle).hidden[0, :place]
            torch.testing.assert_close(content, model(batch).hidden[0, :place], rtol=0, atol=1e-12)
    assert term.count == LENGTH
    assert float(term.sum) == pytest.approx(total, abs=1e-9)


def test_a_target_that_sees_nothing_is_restored_from_nothing() -> None:
    model = module()
    one = batch_of(Example(np.array([9, 8]), np.zeros(2, bool), order=np.array([1, 2]), targets=np.array([9, 8])))
    with torch.no_grad():
        before = model(one).prediction[0, 0]
        after = model(change(one, 0)).prediction[0, 0]
        other = model(change(one, 1)).prediction[0, 0]
    assert torch.isfinite(before).all()
    assert torch.equal(before, after) and torch.equal(before, other)


def test_without_an_order_the_prediction_is_the_content_stream_and_the_query_start_gets_no_gradient() -> None:
    model = LanguageModel(SETTINGS, (MaskedLM(),), VOCAB_SIZE)
    drawn = batch_of(dataclasses.replace(example(1), order=None))
    output = model.backbone(drawn)
    assert torch.equal(output.hidden, output.prediction)
    model(drawn)[0]["mlm"].sum.backward()
    assert model.backbone.unknown.grad is None


def counted(model: XLNetModel, batch: Batch, needed_only: bool) -> tuple[Output, int]:
    """Return the output, and how many places went through the feed-forward layer of the last block."""
    sizes: list[int] = []
    hook = model.blocks[-1].feedforward.register_forward_hook(
        lambda _, given, made: sizes.append(made.shape.numel() // made.shape[-1])
    )
    with torch.no_grad():
        output = model(batch, needed_only=needed_only)
    hook.remove()
    return output, sum(sizes)


def test_the_last_content_layer_is_computed_for_those_who_read_it_only() -> None:
    model = module()
    plain = batch_of(*(example(seed) for seed in range(3)))
    labelled = batch_of(*(dataclasses.replace(example(s), label=1, summary=LENGTH - 1) for s in range(3)))
    full, num_full = counted(model, plain, needed_only=False)
    assert num_full == 3 * LENGTH + plain.num_targets
    lean, num_lean = counted(model, plain, needed_only=True)
    assert num_lean == plain.num_targets
    torch.testing.assert_close(lean.prediction, full.prediction, rtol=0, atol=1e-12)
    summed, num_summed = counted(model, labelled, needed_only=True)
    assert num_summed == plain.num_targets + 3
    torch.testing.assert_close(summed.hidden[:, -1], full.hidden[:, -1], rtol=0, atol=1e-12)
    torch.testing.assert_close(summed.prediction, full.prediction, rtol=0, atol=1e-12)


def test_packed_rows_give_what_their_examples_give_alone() -> None:
    model = module()
    examples = [example(seed, length) for seed, length in enumerate([16, 9, 12, 11])]
    packed = batch_of(*examples, row_length=28, packing=True)
    assert packed.inputs.shape == (2, 28)
    with torch.no_grad():
        output = model(packed)
        for index, place in zip(packed.examples, packed.summary_at.tolist()):
            row, start = divmod(place, 28)
            alone = model(batch_of(examples[index]))
            here = slice(start, start + len(examples[index]))
            for name in ("hidden", "prediction"):
                torch.testing.assert_close(
                    getattr(output, name)[row, here], getattr(alone, name)[0], rtol=0, atol=1e-12
                )


def test_the_grid_of_targets_is_the_same_with_and_without_a_count_from_the_host() -> None:
    batch = batch_of(*(example(seed) for seed in range(5)))
    slot, at = grid(batch)
    assert at.shape == (5, batch.most_targets)
    again = grid(dataclasses.replace(batch, most_targets=0))
    assert torch.equal(slot, again[0]) and torch.equal(at, again[1])
    rows = torch.arange(5)[:, None].expand_as(at).flatten()
    places = (rows * LENGTH + at.flatten())[slot]
    assert torch.equal(places, batch.target_at)


def test_weights_start_normal_with_the_given_spread_and_biases_of_the_scores_too() -> None:
    torch.manual_seed(0)
    model = dataclasses.replace(SETTINGS, hidden_size=256, feedforward_size=512, num_heads=4).build(VOCAB_SIZE)
    for name, parameter in model.named_parameters():
        if "norm" in name or (name.endswith(".bias") and "feedforward" in name):
            assert (parameter == (1 if name.endswith("weight") else 0)).all(), name
        else:
            assert float(parameter.detach().std()) == pytest.approx(0.02, rel=0.15), name
    # What adds to a score is decayed like a weight, and so is the start of the queries: none is a vector.
    assert all(
        parameter.dim() > 1
        for name, parameter in model.named_parameters()
        if "attention." in name and "norm" not in name
    )
    assert model.unknown.dim() > 1


@pytest.mark.parametrize("name, backbone", [("xlnet-base", 116_718_336), ("xlnet-large", 360_268_800)])
def test_parameter_counts_are_those_of_the_released_models(name: str, backbone: int) -> None:
    recipe = recipes.get(name)
    assert cost_of(recipe).num_parameters == backbone + recipe.tokenizer.vocab_size


def test_fine_tuning_reads_the_content_stream_of_the_last_token() -> None:
    model = LanguageModel(SETTINGS, (Classification(num_labels=2),), VOCAB_SIZE)
    assert model.heads["classification"].dense is not None
    ids = np.arange(7, 15)
    row = Example(ids, np.zeros(8, bool), type_ids=np.zeros(8, int), label=1, summary=7)
    batch = collate([row], pad_id=5)
    output = model.backbone(batch)
    scores = model.objectives[0].scores(model.heads["classification"].eval(), model.backbone, output, batch)
    expected = model.heads["classification"](output.hidden[:, -1])
    torch.testing.assert_close(scores, expected)


@pytest.mark.parametrize(
    "change, message",
    [
        ({"hidden_size": 30}, "hidden_size 30 is not an even multiple of num_heads 4"),
        ({"memory_length": -1}, "memory_length is -1"),
        ({"reuse_length": 0}, "reuse_length is 0"),
        ({"clamp_distance": 0}, "clamp_distance is 0"),
        ({"dropout": 1.0}, "dropout is 1.0"),
        ({"num_layers": 0}, "num_layers is 0"),
    ],
)
def test_bad_settings_are_refused_by_name(change: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        dataclasses.replace(SETTINGS, **{"num_heads": 4} | change)


def test_parts_that_do_not_fit_are_refused_with_the_reason() -> None:
    recipe, bert = tiny.recipe("xlnet-tiny"), tiny.recipe("bert-tiny")
    with pytest.raises(InputError, match="Transformer has no second stream"):
        dataclasses.replace(recipe, backbone=dataclasses.replace(bert.backbone, num_types=3))
    with pytest.raises(InputError, match="memory_length is 18, but the examples of SentencePairs do not go on"):
        dataclasses.replace(recipe, segmenter=bert.segmenter)
    with pytest.raises(InputError, match=r"backbone\.reuse_length is 7, but the next example begins after"):
        dataclasses.replace(recipe, backbone=dataclasses.replace(recipe.backbone, reuse_length=7))
    with pytest.raises(InputError, match=r"must be a multiple of noise\.permute_length 5"):
        dataclasses.replace(recipe, noise=dataclasses.replace(recipe.noise, permute_length=5))
    with pytest.raises(InputError, match="PermutationLM restores permuted tokens, but TokenMask leaves out masked"):
        dataclasses.replace(recipe, noise=bert.noise)
    with pytest.raises(InputError, match="MaskedLM restores masked tokens, but PermutationMask leaves out permuted"):
        dataclasses.replace(recipe, objectives=bert.objectives[:1])
    # The denoising ablation (DAE + Transformer-XL) is the same backbone, memory and all, with another noise.
    dataclasses.replace(recipe, noise=bert.noise, objectives=bert.objectives[:1])


def test_compiled_blocks_take_the_fused_path_and_give_the_same_in_both_streams() -> None:
    model = module(dataclasses.replace(SETTINGS, memory_length=10, reuse_length=HALF))
    batch = batch_of(example(1), example(2), contiguous=True)
    with torch.no_grad():
        carry = model(batch).carry
        expected = model(batch, carry)
        for block in model.blocks:
            block.compile(backend="eager", fullgraph=True)
        found = model(batch, carry)
    for name in ("hidden", "prediction"):
        torch.testing.assert_close(getattr(found, name), getattr(expected, name), rtol=0, atol=1e-12)


def step_with(recipe: Recipe, store: Store) -> dict[str, Tensor]:
    """Run two steps, the second with what the first carries over, and backward; returns the gradients."""
    torch.manual_seed(0)
    model, loader = tiny.model(recipe, store), tiny.loader(recipe, store)
    carry = None
    for step in range(2):
        (batch,) = loader.microbatches(step)
        terms, carry = model(batch, carry)
        assert {name: term.count for name, term in terms.items()} == model.counts(batch)
    assert (carry is not None) == (recipe.backbone.memory_length > 0)
    sum(term.sum / term.count for term in terms.values()).backward()
    return {name: value.grad for name, value in model.named_parameters()}


def test_next_sentences_beside_permutations_read_the_content_of_the_summary(store_of: StoreOf) -> None:
    recipe = tiny.recipe("xlnet-tiny")
    segmenter = dataclasses.replace(recipe.segmenter, labels=True)
    recipe = dataclasses.replace(recipe, segmenter=segmenter, objectives=(PermutationLM(), NextSentence()))
    gradients = step_with(recipe, store_of(recipe))
    assert all(gradient is not None and gradient.abs().max() > 0 for gradient in gradients.values())


def test_masks_on_the_same_backbone_with_memory_are_the_denoising_ablation(store_of: StoreOf) -> None:
    recipe, bert = tiny.recipe("xlnet-tiny"), tiny.recipe("bert-tiny")
    recipe = dataclasses.replace(recipe, noise=bert.noise, objectives=bert.objectives[:1])
    gradients = step_with(recipe, store_of(recipe))
    missing = [name for name, gradient in gradients.items() if gradient is None]
    assert missing == ["backbone.unknown"]


@pytest.mark.parametrize(
    "segmenter", [FullSentences(max_length=24), SentencePairs(max_length=24), Chunks(max_length=24)], ids=repr
)
def test_permutations_go_with_other_segmenters_without_memory(segmenter: Segmenter, store_of: StoreOf) -> None:
    recipe = tiny.recipe("xlnet-tiny")
    backbone = dataclasses.replace(recipe.backbone, memory_length=0)
    recipe = dataclasses.replace(recipe, segmenter=segmenter, backbone=backbone)
    gradients = step_with(recipe, store_of(recipe))
    assert gradients["backbone.unknown"].abs().max() > 0
