"""Objectives over a text that a generator has filled in."""

import dataclasses
import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from elision import recipes
from elision.data.batch import Batch
from elision.data.noise import NextToken, TokenMask
from elision.data.segment import Chunks
from elision.data.store import Store
from elision.errors import InputError
from elision.model.heads import PICK_BLOCK, MaskedHead, cross_entropy_and_draws, cross_entropy_sum, pick_by_share
from elision.model.language_model import LanguageModel
from elision.objectives import MaskedLM, NextSentence, ReplacedMLM, ReplacedTokens
from elision.objectives.generator import Generator, tokens_at
from elision.objectives.replaced_mlm import cross_entropies
from elision.objectives.replaced_tokens import first_of_document
from elision.recipe import Recipe
from tests import tiny

StoreOf = Callable[[Recipe], Store]
EXACT = {"dropout": 0.0, "attention_dropout": 0.0}
SHARINGS = ["all", "tokens", "none", "disentangled"]


def model_and_batch(
    store_of: StoreOf, *objectives: object, name: str = "electra-tiny", scrambled: bool = True, **settings: object
) -> tuple[LanguageModel, Batch]:
    """Return a model in float64 with these objectives, and a batch with several examples in a row and empty places."""
    recipe = tiny.recipe(name, **EXACT | settings)
    if objectives:
        recipe = dataclasses.replace(recipe, objectives=objectives)
    recipe = dataclasses.replace(recipe, segmenter=tiny.shrunk(recipe.segmenter, max_length=14, short_probability=0.5))
    store = store_of(recipe)
    torch.manual_seed(0)
    model = tiny.model(recipe, store).double()
    if scrambled:
        with torch.no_grad():
            for parameter in model.parameters():
                parameter += 0.1 * torch.randn_like(parameter)
    (batch,) = tiny.loader(recipe, store, row_length=30).microbatches(0)
    assert (batch.doc_ids == 0).any() and (batch.doc_ids == 2).any()
    return model, batch


def rewritten(model: LanguageModel, batch: Batch) -> Batch:
    (objective,) = model.objectives
    return objective.before(model.heads[objective.name], model.backbone, batch)[0]


def summed(model: LanguageModel, batch: Batch, *names: str) -> Tensor:
    terms, _ = model(batch)
    return sum(terms[name].sum for name in names)


# --- Formulas with plain loops.


def logistic_loss(logit: float, replaced: bool) -> float:
    share = 1 / (1 + math.exp(-logit))
    return -math.log(share if replaced else 1 - share)


def gelu(value: float) -> float:
    return value * 0.5 * (1 + math.erf(value / math.sqrt(2)))


@pytest.mark.parametrize("over", ["all", "masked"])
@pytest.mark.parametrize("reads_summary", [False, True])
@torch.no_grad()
def test_terms_equal_the_formulas_written_as_loops(over: str, reads_summary: bool, store_of: StoreOf) -> None:
    model, batch = model_and_batch(store_of, ReplacedTokens(over=over, reads_summary=reads_summary))
    head, vocab_size = model.heads["rtd"], model.backbone.vocab_size
    terms, _ = model(batch)
    generator_loss, samples = 0.0, {}
    states = head.generator.prediction(model.backbone, batch).detach()
    table = model.backbone.embeddings.tokens.weight.detach()
    draws = iter(batch.draws.tolist())
    for row in range(batch.inputs.shape[0]):
        for column in range(batch.inputs.shape[1]):
            if batch.targets[row, column] < 0:
                continue
            state = head.generator.head.transform(states[row, column]).detach()
            scores = [
                float(state @ table[token]) + float(head.generator.head.bias[token]) for token in range(vocab_size)
            ]
            total = sum(math.exp(score) for score in scores)
            generator_loss -= math.log(math.exp(scores[int(batch.targets[row, column])]) / total)
            draw, passed = next(draws), 0.0
            for token in range(vocab_size):
                passed += math.exp(scores[token]) / total
                if passed > draw:
                    samples[row, column] = token
                    break
    read = rewritten(model, batch)
    for (row, column), token in samples.items():
        assert read.inputs[row, column] == token

    hidden = model.backbone(read).hidden.detach()
    detection_loss, count = 0.0, 0
    for row in range(batch.inputs.shape[0]):
        for column in range(batch.inputs.shape[1]):
            chosen = (row, column) in samples
            if batch.doc_ids[row, column] == 0 or (over == "masked" and not chosen):
                continue
            state = hidden[row, column]
            if reads_summary:
                first = next(c for c in range(column + 1) if batch.doc_ids[row, c] == batch.doc_ids[row, column])
                state = head.norm(state + hidden[row, first]).detach()
            inner = [
                gelu(float(head.dense.weight[unit] @ state) + float(head.dense.bias[unit]))
                for unit in range(len(head.dense.bias))
            ]
            logit = sum(w * x for w, x in zip(head.output.weight[0].tolist(), inner)) + float(head.output.bias)
            replaced = chosen and samples[row, column] != int(batch.targets[row, column])
            detection_loss += logistic_loss(logit, replaced)
            count += 1
    assert float(terms["generator"].sum) == pytest.approx(generator_loss, rel=1e-9)
    assert float(terms["rtd"].sum) == pytest.approx(detection_loss, rel=1e-9)
    assert terms["rtd"].count == count == (batch.num_tokens if over == "all" else batch.num_targets)
    assert (terms["generator"].weight, terms["rtd"].weight) == (1.0, 50.0)


@pytest.mark.parametrize("copies", [True, False])
@torch.no_grad()
def test_all_tokens_are_predicted_as_the_formula_says(copies: bool, store_of: StoreOf) -> None:
    model, batch = model_and_batch(store_of, ReplacedMLM(copies=copies))
    head, read = model.heads["replaced_mlm"], rewritten(model, batch)
    hidden = model.backbone(read).prediction
    expected, table = 0.0, model.backbone.table
    for row, column in (batch.doc_ids > 0).nonzero().tolist():
        target, seen = int(batch.targets[row, column]), int(read.inputs[row, column])
        original = seen if target < 0 else target
        share = head.tokens.logits(hidden[row, column], table).softmax(-1)[original]
        if copies:
            copied = torch.sigmoid(head.copy(hidden[row, column]))[0]
            share = copied * (seen == original) + (1 - copied) * share
        expected -= math.log(float(share))
    term = model(batch)[0]["replaced_mlm"]
    assert term.count == batch.num_tokens
    assert float(term.sum) == pytest.approx(expected, rel=1e-9)


def test_replace_mlm_restores_the_chosen_tokens_from_samples_instead_of_masks(store_of: StoreOf) -> None:
    model, batch = model_and_batch(store_of, ReplacedMLM(over="masked", copies=False))
    head, read = model.heads["replaced_mlm"], rewritten(model, batch)
    hidden_ND = model.backbone(read).prediction.flatten(0, 1)[batch.target_at]
    logits = head.tokens.logits(hidden_ND, model.backbone.table)
    expected = torch.nn.functional.cross_entropy(logits, batch.targets.flatten()[batch.target_at], reduction="sum")
    term = model(batch)[0]["replaced_mlm"]
    torch.testing.assert_close(term.sum, expected, rtol=1e-10, atol=1e-10)
    assert term.count == batch.num_targets
    with pytest.raises(InputError, match="copies is on"):
        ReplacedMLM(over="masked")


def test_cross_entropies_place_by_place_add_up_to_their_sum_with_its_gradients() -> None:
    torch.manual_seed(0)
    head = MaskedHead(50, 6, 8, torch.nn.functional.gelu, 1e-12).double()
    table = torch.randn(50, 8, dtype=torch.float64, requires_grad=True)
    hidden = torch.randn(7, 6, dtype=torch.float64, requires_grad=True)
    targets = torch.randint(0, 50, (7,))
    for each in (
        lambda: cross_entropies(head, hidden, table, targets).sum(),
        lambda: head.loss(hidden, table, targets),
    ):
        each().backward()
    # Both have added to the same gradients, so each is half of them.
    doubled = hidden.grad.clone(), table.grad.clone()
    hidden.grad, table.grad = None, None
    head.loss(hidden, table, targets).backward()
    torch.testing.assert_close(doubled, (2 * hidden.grad, 2 * table.grad))


# --- What is sampled.


def test_what_is_read_equals_the_original_but_where_a_token_was_chosen(store_of: StoreOf) -> None:
    model, batch = model_and_batch(store_of)
    read = rewritten(model, batch)
    chosen = batch.targets >= 0
    assert torch.equal(read.inputs[~chosen], batch.inputs[~chosen])
    unmasked = chosen & (batch.inputs == batch.targets)
    assert unmasked.any(), "some chosen tokens are not masked"
    # All chosen places hold samples, those that kept their token too.
    assert (read.inputs[unmasked] != batch.targets[unmasked]).any()
    assert (read.inputs[chosen] != model_mask(batch)).any()
    for name in ("positions", "doc_ids", "targets", "target_at", "type_ids"):
        assert torch.equal(getattr(read, name), getattr(batch, name))


def model_mask(batch: Batch) -> int:
    """Return the id that stands most often where something is to be restored."""
    return int(batch.inputs.flatten()[batch.target_at].mode().values)


def test_a_sample_that_equals_the_original_is_no_replacement(store_of: StoreOf) -> None:
    model, batch = model_and_batch(store_of)
    (objective,), head = model.objectives, model.heads["rtd"]
    targets = batch.targets.flatten()
    read = batch.inputs.flatten().clone()
    read[batch.target_at] = targets[batch.target_at]
    same = dataclasses.replace(batch, inputs=read.view_as(batch.inputs))
    read = read.clone()
    read[batch.target_at[0]] += 1
    one = dataclasses.replace(batch, inputs=read.view_as(batch.inputs))
    output = model.backbone(same)
    for filled, num_replaced in ((same, 0), (one, 1)):
        judged = objective.judge(head, model.backbone, output, filled)
        assert int(judged["rtd"].labels.sum()) == num_replaced and len(judged["rtd"].labels) == batch.num_tokens


def test_samples_follow_the_draws_of_the_batch_and_not_the_global_generator(store_of: StoreOf) -> None:
    model, batch = model_and_batch(store_of)
    first = rewritten(model, batch).inputs
    torch.manual_seed(99)
    assert torch.equal(rewritten(model, batch).inputs, first)
    other = dataclasses.replace(batch, draws=1 - batch.draws)
    assert not torch.equal(rewritten(model, other).inputs, first)
    undrawn = dataclasses.replace(batch, draws=None)
    torch.manual_seed(1)
    again = rewritten(model, undrawn).inputs
    torch.manual_seed(1)
    assert torch.equal(rewritten(model, undrawn).inputs, again)


def test_a_low_temperature_picks_the_likeliest_token_and_a_high_one_any(store_of: StoreOf) -> None:
    found = {}
    for temperature in (1e-3, 1.0, 1e6):
        model, batch = model_and_batch(store_of, temperature=temperature)
        logits = model.logits(batch).flatten(0, 1)[batch.target_at]
        samples = rewritten(model, batch).inputs.flatten()[batch.target_at]
        found[temperature] = float((samples == logits.argmax(-1)).double().mean())
        if temperature == 1e6:
            assert (samples - batch.draws * model.backbone.vocab_size).abs().max() < 1.01
    assert found[1e-3] == 1.0 > found[1.0]


@pytest.mark.parametrize("num_columns", [5, PICK_BLOCK, 3 * PICK_BLOCK, 3 * PICK_BLOCK + 1, 1000])
def test_columns_are_picked_by_their_share(num_columns: int) -> None:
    generator = torch.Generator().manual_seed(0)
    weights = torch.rand(200, num_columns, generator=generator) ** 8
    weights[:, 1] = 0
    draws = torch.rand(200, dtype=torch.float64, generator=generator)
    draws[:2] = torch.tensor([0.0, 1 - 1e-16])
    running = weights.double().cumsum(-1)
    expected = (running > draws[:, None] * running[:, -1:]).int().argmax(-1)
    expected[1] = int((weights[1] > 0).nonzero().max())
    picked = pick_by_share(weights, draws)
    assert torch.equal(picked, expected) and not (picked == 1).any()


def test_samples_have_the_frequencies_of_the_softmax_and_the_loss_is_unchanged_by_them() -> None:
    torch.manual_seed(0)
    hidden, table, bias = torch.randn(1, 4).repeat(20_000, 1), torch.randn(300, 4), torch.randn(300)
    hidden.requires_grad_()
    targets = torch.randint(0, 300, (20_000,))
    total, drawn = cross_entropy_and_draws(hidden, table, bias, targets, torch.rand(20_000, dtype=torch.float64))
    torch.testing.assert_close(total, cross_entropy_sum(hidden, table, bias, targets), rtol=0, atol=0)
    assert not drawn.requires_grad and total.requires_grad
    share = (hidden[0].detach() @ table.T + bias).softmax(-1)
    counted = torch.bincount(drawn, minlength=300) / 20_000
    assert (counted - share).abs().max() < 5 * float((share.max() / 20_000).sqrt())


# --- Which gradient reaches what.


@pytest.mark.parametrize("sharing", SHARINGS)
def test_detection_gives_no_gradient_to_weights_of_the_generator_alone(sharing: str, store_of: StoreOf) -> None:
    model, batch = model_and_batch(store_of, sharing=sharing)
    summed(model, batch, "rtd").backward()
    for name, parameter in model.named_parameters():
        if ".generator." in name:
            assert parameter.grad is None or not parameter.grad.any(), name
        else:
            assert parameter.grad.abs().max() > 0, name


@pytest.mark.parametrize("sharing", ["all", "tokens"])
def test_the_shared_table_learns_from_both(sharing: str, store_of: StoreOf) -> None:
    model, batch = model_and_batch(store_of, sharing=sharing)
    table, positions = model.backbone.embeddings.tokens.weight, model.backbone.embeddings.positions.table.weight
    found = {}
    for names in (("rtd",), ("generator",), ("rtd", "generator")):
        model.zero_grad(set_to_none=True)
        summed(model, batch, *names).backward()
        found[names] = table.grad.clone()
        assert table.grad.abs().max() > 0
        if names == ("generator",):
            assert (positions.grad is not None) == (sharing == "all")
    torch.testing.assert_close(found["rtd", "generator"], found["rtd",] + found["generator",], rtol=1e-10, atol=1e-10)


def test_generator_and_discriminator_read_the_same_memory(store_of: StoreOf) -> None:
    for sharing in ("all", "tokens"):
        model, _ = model_and_batch(store_of, sharing=sharing)
        generator, table = model.heads["rtd"].generator, model.backbone.embeddings.tokens.weight
        assert generator.table(model.backbone).data_ptr() == table.data_ptr()
        if sharing == "tokens":
            assert generator.model.table.data_ptr() == table.data_ptr()
        else:
            assert generator.model.embeddings is None
        # Nothing is saved or counted twice.
        pointers = [value.data_ptr() for value in model.state_dict().values()]
        assert len(set(pointers)) == len(pointers)


def test_the_generator_alone_learns_from_its_term_besides_what_is_shared(store_of: StoreOf) -> None:
    model, batch = model_and_batch(store_of, sharing="none")
    summed(model, batch, "generator").backward()
    for name, parameter in model.named_parameters():
        if ".generator." in name:
            assert parameter.grad.abs().max() > 0, name
        else:
            assert parameter.grad is None, name


def test_disentangled_tables_are_equal_at_the_start_and_detection_trains_the_difference_alone(
    store_of: StoreOf,
) -> None:
    model, batch = model_and_batch(store_of, sharing="disentangled", scrambled=False)
    backbone, generator = model.backbone, model.heads["rtd"].generator
    assert not backbone.embeddings.tokens.weight.any()
    assert torch.equal(backbone.table, generator.model.table)
    summed(model, batch, "rtd").backward()
    assert generator.model.embeddings.tokens.weight.grad is None
    assert backbone.embeddings.tokens.weight.grad.abs().max() > 0
    with torch.no_grad():
        backbone.embeddings.tokens.weight += 1
    shipped = backbone.standalone_state()["embeddings.tokens.weight"]
    assert torch.equal(shipped, generator.model.embeddings.tokens.weight + 1)


# --- Places and counts.


def test_empty_places_contribute_nothing_whatever_stands_there(store_of: StoreOf) -> None:
    model, batch = model_and_batch(store_of)
    empty = batch.doc_ids == 0
    scribbled = dataclasses.replace(batch, inputs=torch.where(empty, 17, batch.inputs))
    before, after = model(batch)[0], model(scribbled)[0]
    for name in before:
        torch.testing.assert_close(after[name].sum, before[name].sum, rtol=1e-12, atol=0)
    assert before["rtd"].count == int((~empty).sum())


def test_detection_starts_near_ln_2_for_each_token(store_of: StoreOf) -> None:
    model, batch = model_and_batch(store_of, scrambled=False)
    term = model(batch)[0]["rtd"]
    assert float(term.sum.detach()) / term.count == pytest.approx(math.log(2), abs=0.01)


def test_samples_and_terms_do_not_depend_on_how_examples_lie_in_rows(store_of: StoreOf) -> None:
    recipe = tiny.recipe("electra-tiny", **EXACT)
    recipe = dataclasses.replace(recipe, segmenter=tiny.shrunk(recipe.segmenter, max_length=12, short_probability=0.5))
    store = store_of(recipe)
    torch.manual_seed(0)
    model = tiny.model(recipe, store).double()
    found = []
    for settings in ({"packing": True, "row_length": 40}, {"packing": False}, {"microbatch_size": 3}):
        samples = {}
        for batch in tiny.loader(recipe, store, **settings).microbatches(0):
            read = rewritten(model, batch)
            for index, place in zip(batch.examples, batch.summary_at.tolist()):
                row, column = divmod(place, batch.inputs.shape[1])
                here = batch.doc_ids[row] == batch.doc_ids[row, column]
                samples[index] = read.inputs[row, here].tolist()
        found.append(samples)
    assert found[0] == found[1] == found[2]


def test_the_places_of_tokens_and_of_first_tokens_are_found_without_counting() -> None:
    doc_ids = torch.tensor([[1, 1, 2, 0], [1, 2, 2, 2], [1, 0, 0, 0]])
    batch = Batch(doc_ids, doc_ids, doc_ids, doc_ids, doc_ids, doc_ids, num_tokens=8)
    assert tokens_at(batch).tolist() == [0, 1, 2, 4, 5, 6, 7, 8]
    assert first_of_document(doc_ids).tolist() == [0, 0, 2, 3, 4, 5, 5, 5, 8, 9, 9, 9]
    whole = dataclasses.replace(batch, doc_ids=torch.ones(2, 3), whole_rows=True, num_tokens=6)
    assert tokens_at(whole).tolist() == [0, 1, 2, 3, 4, 5]


# --- Sizes, and what goes together.


@pytest.mark.parametrize(
    ("name", "body", "generator"),
    [
        ("electra-small", 13_483_008, (64, 1, 12, 256, 128)),
        ("electra-small-plus-plus", 13_483_008, (256, 4, 12, 1024, 128)),
        ("electra-base", 108_891_648, (256, 4, 12, 1024, 768)),
        ("electra-large", 334_092_288, (256, 4, 24, 1024, 1024)),
    ],
)
def test_bodies_have_as_many_parameters_as_published_and_generators_their_sizes(
    name: str, body: int, generator: tuple[int, ...]
) -> None:
    recipe = recipes.get(name)
    with torch.device("meta"):
        model = LanguageModel(recipe.backbone, recipe.objectives, 30522)
    assert sum(parameter.numel() for parameter in model.backbone.parameters()) == body
    smaller = recipe.objectives[0].generator.settings(recipe.backbone)
    sizes = (
        smaller.hidden_size,
        smaller.num_heads,
        smaller.num_layers,
        smaller.feedforward_size,
        smaller.embedding_size,
    )
    assert sizes == generator
    assert model.heads["rtd"].generator.model.project.in_features == generator[4]


def test_half_the_depth_and_the_same_width_need_no_projection() -> None:
    backbone = recipes.get("bert-base").backbone
    smaller = Generator(width=1.0, depth=0.5).settings(backbone)
    assert (smaller.num_layers, smaller.hidden_size, smaller.embedding_size) == (6, 768, None)
    assert not smaller.pooler
    with pytest.raises(InputError, match=r"generator\.width is 0"):
        Generator(width=0)
    with pytest.raises(InputError, match=r"generator\.temperature is -1"):
        Generator(temperature=-1.0)


def test_what_cannot_stand_together_is_refused_with_the_reason() -> None:
    electra, bert, gpt2 = (recipes.get(name) for name in ("electra-tiny", "bert-tiny", "gpt2-tiny"))
    with pytest.raises(InputError, match="MaskedLM cannot stand beside ReplacedTokens, whose generator fills in"):
        dataclasses.replace(electra, objectives=(MaskedLM(), ReplacedTokens()))
    with pytest.raises(InputError, match="ReplacedMLM cannot stand beside ReplacedTokens"):
        dataclasses.replace(electra, objectives=(ReplacedTokens(), ReplacedMLM()))
    with pytest.raises(InputError, match="restores masked tokens, but NextToken"):
        dataclasses.replace(electra, segmenter=Chunks(128), noise=NextToken())
    with pytest.raises(InputError, match=r"needs backbone\.visibility 'bidirectional'"):
        dataclasses.replace(gpt2, noise=TokenMask(), objectives=(ReplacedTokens(),))
    with pytest.raises(InputError, match="SentencePairs"):
        dataclasses.replace(electra, objectives=(ReplacedTokens(), NextSentence()))
    frame = dataclasses.replace(electra.backbone, frame="xlnet")
    with pytest.raises(InputError, match="reads_summary is on"):
        dataclasses.replace(electra, backbone=frame, objectives=(ReplacedTokens(reads_summary=True),))
    assert dataclasses.replace(bert, objectives=(ReplacedTokens(), NextSentence()))


@pytest.mark.parametrize("name", ["bert-tiny", "roberta-tiny", "albert-tiny", "spanbert-tiny"])
def test_detection_works_over_the_noise_and_the_encoder_of_others(name: str, store_of: StoreOf) -> None:
    recipe = tiny.recipe(name, **EXACT)
    beside = [each for each in recipe.objectives if not getattr(each, "needs", None)]
    objective = ReplacedTokens(Generator(width=0.5))
    backbone = dataclasses.replace(recipe.backbone, pooler=any(hasattr(each, "num_labels") for each in beside))
    recipe = dataclasses.replace(recipe, objectives=(objective, *beside), backbone=backbone)
    store = store_of(recipe)
    torch.manual_seed(0)
    model = tiny.model(recipe, store).double()
    (batch,) = tiny.loader(recipe, store).microbatches(0)
    terms, _ = model(batch)
    assert terms.keys() == {"generator", "rtd", *(each.name for each in beside)}
    sum(term.sum for term in terms.values()).backward()
    for name_of_parameter, parameter in model.named_parameters():
        assert parameter.grad is not None and parameter.grad.abs().max() > 0, name_of_parameter


def test_the_generator_answers_for_the_model_where_tokens_are_predicted(store_of: StoreOf) -> None:
    model, batch = model_and_batch(store_of)
    assert model.token_objective.token_term == "generator"
    head = model.heads["rtd"]
    states = head.generator.model(batch, embedded=model.backbone.embeddings(batch)).prediction
    torch.testing.assert_close(model.logits(batch), head.generator.head.logits(states, model.backbone.table))
    assert [*head.blocks] == [*head.generator.model.blocks]


def test_operations_count_the_generator_its_head_at_targets_and_one_judgement_a_token(store_of: StoreOf) -> None:
    model, batch = model_and_batch(store_of, width=0.5)
    (objective,), smaller = model.objectives, model.heads["rtd"].generator.model.settings
    places, width = batch.num_targets, smaller.hidden_size
    expected = smaller.flops_per_token(30) * batch.num_tokens
    expected -= smaller.skippable_flops * (batch.num_tokens - len(batch.needed_at))
    expected += 2 * places * (width * 32 + 32 * model.backbone.vocab_size)
    expected += 2 * batch.num_tokens * (32 * 32 + 32)
    assert objective.num_flops(model.heads["rtd"], model.backbone, batch) == expected
