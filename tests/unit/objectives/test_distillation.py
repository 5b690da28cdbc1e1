"""Distillation against plain formulas, and the teacher that stands beside the student."""

import copy
import dataclasses
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
import transformers
from torch import Tensor

import elision
from elision import recipes
from elision.data.batch import Batch
from elision.data.store import Store
from elision.errors import InputError
from elision.model import heads
from elision.model.language_model import LanguageModel
from elision.model.soft_targets import distilled_sums
from elision.objectives import Distillation, MaskedLM
from elision.objectives.teacher import spread_layers
from elision.recipe import Recipe
from elision.train.checkpoint import read_weights, write_weights
from elision.train.loop import fit
from elision.train.pretrain import prepare_run
from tests import tiny

EXACT = {"dropout": 0.0, "attention_dropout": 0.0}


def tensors(num_places: int = 23, num_targets: int = 7, vocab_size: int = 50, width: int = 8) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(0)

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator, dtype=torch.float64)

    return {
        "hidden": normal(num_places, width).requires_grad_(),
        "table": normal(vocab_size, width).requires_grad_(),
        "bias": normal(vocab_size).requires_grad_(),
        "targets": torch.randint(vocab_size, (num_targets,), generator=generator),
        "teacher": 3 * normal(num_places, vocab_size),
    }


def sums(given: dict[str, Tensor], temperature: float = 2.0) -> tuple[Tensor, Tensor]:
    teach: Callable[[int, int], Tensor] = lambda begin, end: given["teacher"][begin:end]  # noqa: E731
    return distilled_sums(given["hidden"], given["table"], given["bias"], given["targets"], teach, temperature)


@pytest.mark.parametrize("chunk", [1 << 22, 50 * 5, 50 * 7, 1])
@pytest.mark.parametrize("temperature", [1.0, 2.0, 5.0])
def test_both_sums_and_all_gradients_are_those_of_pytorchs_losses(
    chunk: int, temperature: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(heads, "CHUNK_NUMEL", chunk)
    given = tensors()
    soft, hard = sums(given, temperature)
    (0.7 * soft + 1.9 * hard).backward()
    ours = [given[name].grad.clone() for name in ("hidden", "table", "bias")]
    for name in ("hidden", "table", "bias"):
        given[name].grad = None
    scores = given["hidden"] @ given["table"].T + given["bias"]
    divergence = torch.nn.KLDivLoss(reduction="batchmean")(
        torch.log_softmax(scores / temperature, -1), torch.softmax(given["teacher"] / temperature, -1)
    )
    expected_soft = temperature**2 * divergence * len(scores)
    expected_hard = F.cross_entropy(scores[:7], given["targets"], reduction="sum")
    torch.testing.assert_close(soft, expected_soft, rtol=1e-12, atol=0)
    torch.testing.assert_close(hard, expected_hard, rtol=1e-12, atol=0)
    (0.7 * expected_soft + 1.9 * expected_hard).backward()
    for mine, name in zip(ours, ("hidden", "table", "bias")):
        torch.testing.assert_close(mine, given[name].grad, rtol=1e-10, atol=1e-12)


def test_scores_are_held_chunk_by_chunk(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(heads, "CHUNK_NUMEL", 50 * 5)
    given, asked = tensors(), []

    def teach(begin: int, end: int) -> Tensor:
        asked.append((begin, end))
        return given["teacher"][begin:end]

    distilled_sums(given["hidden"], given["table"], given["bias"], given["targets"], teach, 2.0)
    assert asked == [(0, 5), (5, 10), (10, 15), (15, 20), (20, 23)]


def test_a_shift_of_all_scores_of_a_place_changes_nothing() -> None:
    given = tensors()
    soft, _ = sums(given)
    shifted = given | {"teacher": given["teacher"] + torch.linspace(-50, 50, 23, dtype=torch.float64)[:, None]}
    torch.testing.assert_close(sums(shifted)[0], soft, rtol=1e-10, atol=0)


def test_a_student_that_says_what_the_teacher_says_loses_nothing_and_learns_nothing() -> None:
    given = tensors()
    given["teacher"] = (given["hidden"] @ given["table"].T + given["bias"]).detach()
    soft, _ = sums(given)
    soft.backward()
    assert abs(float(soft.detach())) < 1e-12
    assert all(float(given[name].grad.abs().max()) < 1e-12 for name in ("hidden", "table", "bias"))


def test_half_precision_agrees_roughly() -> None:
    given = tensors()
    exact = [float(value.detach()) for value in sums(given)]
    single = {name: value.detach().float() if value.is_floating_point() else value for name, value in given.items()}
    for name in ("hidden", "table", "bias"):
        single[name].requires_grad_()
    with torch.autocast("cpu", torch.bfloat16):
        rough = sums(single)
    (rough[0] + rough[1]).backward()
    assert [float(value.detach()) for value in rough] == pytest.approx(exact, rel=0.02)
    assert single["table"].grad.dtype == torch.float32 and single["table"].grad.isfinite().all()


# A teacher of four layers with segments and a pooler, a student of two.


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return tiny.text_store(tmp_path_factory.mktemp("text") / "store", tiny.WORDPIECE)


@pytest.fixture(scope="module")
def teacher(store: Store, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("teacher")
    save(tiny.recipe("bert-tiny", num_layers=4), store, folder)
    return folder


def save(recipe: Recipe, store: Store, folder: Path) -> LanguageModel:
    folder.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(3)
    model = LanguageModel(recipe.backbone, recipe.objectives, store.tokenizer.vocabulary.size)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.1 * torch.randn_like(parameter)
    recipe.save(folder / "recipe.json")
    store.tokenizer.save(folder / "tokenizer")
    write_weights(folder, model)
    return model


def changed(teacher: Path, **settings: object) -> Recipe:
    recipe = tiny.recipe("distilbert-tiny", **EXACT)
    objective = dataclasses.replace(recipe.objectives[0], teacher=str(teacher), **settings)
    return dataclasses.replace(recipe, objectives=(objective,))


def begun(recipe: Recipe, store: Store) -> LanguageModel:
    torch.manual_seed(0)
    return tiny.model(recipe, store)


def batch_of(recipe: Recipe, store: Store) -> Batch:
    (batch,) = tiny.loader(recipe, store, row_length=30).microbatches(0)
    # Several texts to a row, and empty places.
    assert (batch.doc_ids == 0).any() and batch.doc_ids.max() > 1
    return batch


def test_the_three_terms_are_those_of_the_formulas(teacher: Path, store: Store) -> None:
    recipe = changed(teacher, weight=2.0, soft_weight=5.0, cosine_weight=1.0, copy_layers=False)
    model, batch = begun(recipe, store).double(), batch_of(recipe, store)
    terms, _ = model(batch)
    theirs = elision.load(teacher).model.double()
    real = batch.doc_ids > 0
    with torch.no_grad():
        ours_hidden, their_hidden = model.backbone(batch).hidden[real], theirs.backbone(batch).hidden[real]
        scores, taught = model.logits(batch)[real], theirs.logits(batch)[real]
        targets = batch.targets[real]
        soft = 4 * torch.nn.KLDivLoss(reduction="batchmean")(
            torch.log_softmax(scores / 2, -1), torch.softmax(taught / 2, -1)
        )
        hard = F.cross_entropy(scores, targets, ignore_index=-100)
        cosine = torch.nn.CosineEmbeddingLoss()(ours_hidden, their_hidden, torch.ones(len(ours_hidden)))
    for name, value in (("soft", soft), ("mlm", hard), ("cosine", cosine)):
        torch.testing.assert_close(terms[name].sum / terms[name].count, value, rtol=1e-10, atol=1e-12)
    assert {name: (term.count, term.weight) for name, term in terms.items()} == {
        "mlm": (batch.num_targets, 2.0),
        "soft": (int(real.sum()), 5.0),
        "cosine": (int(real.sum()), 1.0),
    }


def test_restricted_to_targets_the_soft_term_is_over_targets_alone(teacher: Path, store: Store) -> None:
    recipe = changed(teacher, soft_places="targets", cosine_weight=0.0, copy_layers=False)
    model, batch = begun(recipe, store).double(), batch_of(recipe, store)
    assert model.reads_needed_only
    terms, _ = model(batch)
    theirs = elision.load(teacher).model.double()
    at = batch.targets >= 0
    with torch.no_grad():
        scores, taught = model.logits(batch)[at], theirs.logits(batch)[at]
        soft = 4 * F.kl_div(torch.log_softmax(scores / 2, -1), torch.softmax(taught / 2, -1), reduction="sum")
    torch.testing.assert_close(terms["soft"].sum, soft, rtol=1e-10, atol=0)
    assert terms["soft"].count == batch.num_targets and set(terms) == {"mlm", "soft"} == set(model.counts(batch))


@pytest.mark.parametrize(
    ("weights", "names"),
    [
        ({"soft_weight": 0.0}, {"mlm", "cosine"}),
        ({"cosine_weight": 0.0}, {"mlm", "soft"}),
        ({"soft_weight": 0.0, "cosine_weight": 0.0}, {"mlm"}),
    ],
)
def test_a_term_without_weight_is_not_computed_and_the_others_stay(
    weights: dict, names: set, teacher: Path, store: Store
) -> None:
    full, part = begun(changed(teacher), store).double(), begun(changed(teacher, **weights), store).double()
    batch = batch_of(changed(teacher), store)
    everything, some = full(batch)[0], part(batch)[0]
    assert set(some) == names == set(part.counts(batch))
    for name in names:
        torch.testing.assert_close(some[name].sum, everything[name].sum, rtol=1e-10, atol=1e-10)


def test_a_student_that_is_its_teacher_loses_nothing_in_soft_and_cosine(store: Store, tmp_path: Path) -> None:
    recipe = changed(tmp_path / "twin")
    save(dataclasses.replace(recipe, objectives=(MaskedLM(),)), store, tmp_path / "twin")
    model, batch = begun(recipe, store).double(), batch_of(recipe, store)
    terms, _ = model(batch)
    assert abs(float(terms["soft"].sum.detach())) < 1e-9 and abs(float(terms["cosine"].sum.detach())) < 1e-9
    (terms["soft"].sum + terms["cosine"].sum).backward()
    assert max(float(parameter.grad.abs().max()) for parameter in model.parameters()) < 1e-9
    assert float(terms["mlm"].sum.detach()) > 1


def test_layers_spread_evenly_from_the_first_to_the_last() -> None:
    assert spread_layers(12, 6) == (0, 2, 4, 7, 9, 11)
    assert spread_layers(4, 2) == (0, 3)
    assert spread_layers(6, 6) == tuple(range(6))
    assert spread_layers(12, 1) == (0,)
    with pytest.raises(InputError, match="the student has 3 layers, the teacher only 2"):
        spread_layers(2, 3)


@pytest.mark.parametrize(("layers", "taken"), [((), (0, 3)), ((1, 2), (1, 2))])
def test_the_student_begins_with_layers_tables_and_head_of_the_teacher(
    layers: tuple, taken: tuple, teacher: Path, store: Store
) -> None:
    model = begun(changed(teacher, layers=layers), store)
    theirs = read_weights(teacher)
    mine = model.state_dict()
    for layer, source in enumerate(taken):
        names = [name for name in mine if name.startswith(f"backbone.blocks.{layer}.")]
        assert len(names) == 12
        for name in names:
            assert torch.equal(mine[name], theirs[name.replace(f"blocks.{layer}.", f"blocks.{source}.")])
    rest = [name for name in mine if "blocks" not in name]
    assert len(rest) == 4 + 5
    assert all(torch.equal(mine[name], theirs[name]) for name in rest)


def test_without_copying_the_student_begins_at_random(teacher: Path, store: Store) -> None:
    model, theirs = begun(changed(teacher, copy_layers=False), store), read_weights(teacher)
    for name, value in model.state_dict().items():
        if value.dim() > 1:
            assert not torch.equal(value, theirs[name]), name


def test_the_teacher_gets_no_gradient_and_has_no_dropout(teacher: Path, store: Store) -> None:
    recipe = tiny.recipe("distilbert-tiny", **EXACT)
    assert tiny.recipe("bert-tiny").backbone.dropout > 0
    recipe = dataclasses.replace(recipe, objectives=(dataclasses.replace(recipe.objectives[0], teacher=str(teacher)),))
    model, batch = begun(recipe, store).train(), batch_of(recipe, store)
    before = read_weights(teacher)
    first, again = model(batch)[0], model(batch)[0]
    assert all(float(first[name].sum.detach()) == float(again[name].sum.detach()) for name in first)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    sum(term.sum for term in first.values()).backward()
    optimizer.step()
    theirs = model.heads["mlm"].teacher.model
    assert not theirs.training
    for name, parameter in theirs.named_parameters():
        assert parameter.grad is None and not parameter.requires_grad
        assert torch.equal(parameter, before[name])


def test_the_teacher_is_neither_counted_nor_saved_nor_copied(teacher: Path, store: Store, tmp_path: Path) -> None:
    recipe = changed(teacher)
    model = begun(recipe, store)
    plain = LanguageModel(recipe.backbone, (MaskedLM(),), store.tokenizer.vocabulary.size)
    assert model.num_parameters() == plain.num_parameters()
    assert model.state_dict().keys() == plain.state_dict().keys()
    write_weights(tmp_path, model)
    assert read_weights(tmp_path).keys() == plain.state_dict().keys()
    assert copy.deepcopy(model).heads["mlm"].teacher is model.heads["mlm"].teacher


def test_the_work_of_the_teacher_is_counted_without_a_backward_pass(teacher: Path, store: Store) -> None:
    recipe = changed(teacher)
    batch = batch_of(recipe, store)
    torch.manual_seed(0)
    alone = LanguageModel(recipe.backbone, recipe.objectives, store.tokenizer.vocabulary.size)
    taught = begun(recipe, store)
    theirs = taught.heads["mlm"].teacher
    extra = taught.num_flops(batch) - alone.num_flops(batch)
    assert extra == pytest.approx(theirs.num_flops(batch, batch.num_tokens))


def test_a_student_is_used_and_measured_without_its_teacher_but_not_trained(
    teacher: Path, store: Store, tmp_path: Path
) -> None:
    recipe = changed(teacher)
    save(dataclasses.replace(recipe), store, tmp_path / "student")
    moved = dataclasses.replace(
        recipe, objectives=(dataclasses.replace(recipe.objectives[0], teacher=str(tmp_path / "gone")),)
    )
    moved.save(tmp_path / "student" / "recipe.json")
    model = elision.load(tmp_path / "student").model
    batch = batch_of(recipe, store)
    terms, _ = model(batch)
    assert set(terms) == {"mlm"}
    with pytest.raises(InputError, match="gone does not exist"):
        model.train()(batch)


def test_a_run_that_was_interrupted_asks_its_teacher_again_and_ends_the_same(
    teacher: Path, store: Store, tmp_path: Path
) -> None:
    recipe = tiny.recipe("distilbert-tiny", steps=6, checkpoint_every=3, eval_every=3)
    recipe = dataclasses.replace(recipe, objectives=(dataclasses.replace(recipe.objectives[0], teacher=str(teacher)),))
    whole = prepare_run(recipe, store, tmp_path / "whole")
    fit(whole)
    first = prepare_run(recipe, store, tmp_path / "cut")
    checkpoints: list[int] = []

    class Stop(Exception):
        pass

    def stop(progress: object) -> None:
        checkpoints.append(progress.step)
        if progress.step == 5:
            raise Stop

    with pytest.raises(Stop):
        fit(dataclasses.replace(first, train=dataclasses.replace(first.train, log_every=1), report=stop))
    second = prepare_run(recipe, store, tmp_path / "cut")
    assert second.model.heads["mlm"].teacher is None
    fit(second)
    for name, value in whole.model.state_dict().items():
        assert torch.equal(value, second.model.state_dict()[name]), name


def test_a_shared_teacher_lends_its_one_layer_to_all_of_the_students(store: Store, tmp_path: Path) -> None:
    recipe = tiny.recipe("bert-tiny", num_layers=4)
    backbone = dataclasses.replace(recipe.backbone, sharing="all", num_groups=2)
    save(dataclasses.replace(recipe, backbone=backbone), store, tmp_path)
    theirs, mine = read_weights(tmp_path), begun(changed(tmp_path), store).state_dict()
    for name, value in mine.items():
        if name.startswith("backbone.blocks."):
            group = {"0": "0", "1": "2"}[name.split(".")[2]]
            assert torch.equal(value, theirs[name.replace("blocks.1.", f"blocks.{group}.")])


def test_a_hugging_face_folder_can_teach(store: Store, tmp_path: Path) -> None:
    size = store.tokenizer.vocabulary.size
    # Their table may be padded beyond the symbols, and their position table longer.
    config = transformers.BertConfig(
        vocab_size=size + 5, hidden_size=32, num_hidden_layers=3, num_attention_heads=2, intermediate_size=64,
        max_position_embeddings=40,
    )  # fmt: skip
    theirs = transformers.BertForMaskedLM(config).eval()
    theirs.save_pretrained(tmp_path)
    store.tokenizer.save(tmp_path)
    recipe = changed(tmp_path)
    model, batch = begun(recipe, store), batch_of(recipe, store)
    embeddings = theirs.bert.embeddings
    assert torch.equal(model.backbone.embeddings.tokens.weight, embeddings.word_embeddings.weight[:size])
    assert torch.equal(model.backbone.embeddings.positions.table.weight, embeddings.position_embeddings.weight[:32])
    assert torch.equal(
        model.backbone.blocks[1].feedforward.inner.weight, theirs.bert.encoder.layer[2].intermediate.dense.weight
    )
    terms, _ = model(batch)
    assert {"mlm", "soft", "cosine"} == set(terms) and all(term.sum.isfinite() for term in terms.values())


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"teacher": ""}, "has no teacher: name a run, checkpoint"),
        ({"teacher": "nowhere"}, "nowhere does not exist"),
        ({"layers": (0, 4)}, r"layers is \(0, 4\): give 2 numbers from 0 to 3"),
        ({"layers": (0,)}, r"layers is \(0,\): give 2 numbers"),
    ],
)
def test_what_cannot_teach_is_refused_with_the_reason(
    settings: dict, message: str, teacher: Path, store: Store
) -> None:
    recipe = changed(teacher)
    recipe = dataclasses.replace(recipe, objectives=(dataclasses.replace(recipe.objectives[0], **settings),))
    with pytest.raises(InputError, match=message):
        begun(recipe, store)


def test_a_teacher_of_another_width_can_only_teach_predictions(store: Store, tmp_path: Path) -> None:
    save(tiny.recipe("bert-tiny", hidden_size=48, num_heads=4), store, tmp_path)
    with pytest.raises(InputError, match="states have width 48, the student's 32"):
        begun(changed(tmp_path), store)
    with pytest.raises(InputError, match="cannot begin with layers of the teacher"):
        begun(changed(tmp_path, cosine_weight=0.0), store)
    model = begun(changed(tmp_path, cosine_weight=0.0, copy_layers=False), store)
    assert set(model(batch_of(changed(tmp_path), store))[0]) == {"mlm", "soft"}


def test_a_teacher_of_another_vocabulary_or_without_masked_tokens_is_refused(store: Store, tmp_path: Path) -> None:
    smaller = dataclasses.replace(tiny.WORDPIECE, vocab_size=120)
    other = tiny.text_store(tmp_path / "other", smaller)
    save(tiny.recipe("bert-tiny"), other, tmp_path / "few")
    with pytest.raises(InputError, match="knows 120 symbols, the student"):
        begun(changed(tmp_path / "few"), store)
    save(tiny.recipe("bert-tiny"), store, tmp_path / "many")
    with pytest.raises(InputError, match=r"has another vocabulary \(.* symbols\) than the student \(120\)"):
        begun(changed(tmp_path / "many"), other)
    recipe = tiny.recipe("gpt2-tiny")
    words = tiny.text_store(tmp_path / "bytes", recipe.tokenizer)
    save(recipe, words, tmp_path / "gpt2")
    with pytest.raises(InputError, match="does not restore masked tokens"):
        begun(changed(tmp_path / "gpt2"), words)


def test_what_a_teacher_has_learned_reaches_a_student_that_is_shown_no_target(store: Store, tmp_path: Path) -> None:
    """A teacher that was taught one batch passes it on to a student that never reads its targets."""
    teach = tiny.recipe("bert-tiny", **EXACT)
    teach = dataclasses.replace(teach, segmenter=tiny.recipe("distilbert-tiny").segmenter, objectives=(MaskedLM(),))
    recipe = changed(tmp_path / "taught", weight=0.0, cosine_weight=0.0, copy_layers=False)
    (batch,) = tiny.loader(recipe, store).microbatches(0)
    torch.manual_seed(0)
    master = LanguageModel(teach.backbone, teach.objectives, store.tokenizer.vocabulary.size)
    assert learned(master, batch, "mlm", 150) < 0.2
    folder = tmp_path / "taught"
    folder.mkdir()
    teach.save(folder / "recipe.json")
    store.tokenizer.save(folder / "tokenizer")
    write_weights(folder, master)
    pupil = begun(recipe, store)
    before = float(pupil(batch)[0]["mlm"].sum.detach()) / batch.num_targets
    learned(pupil, batch, "soft", 150)
    after = float(pupil(batch)[0]["mlm"].sum.detach()) / batch.num_targets
    assert before > 4 and after < 1


def learned(model: LanguageModel, batch: Batch, term: str, steps: int) -> float:
    """Train on one term of one batch; returns its last mean."""
    optimizer = torch.optim.Adam(model.parameters(), lr=5e-3)
    for _ in range(steps):
        found = model(batch)[0][term]
        optimizer.zero_grad()
        (found.sum / found.count).backward()
        optimizer.step()
    return float(found.sum.detach()) / found.count


def test_settings_out_of_range_are_named() -> None:
    with pytest.raises(InputError, match="temperature is 0"):
        Distillation(temperature=0)
    with pytest.raises(InputError, match="soft_weight is -1"):
        Distillation(soft_weight=-1)


def test_the_published_recipe_has_the_published_weights_and_layers() -> None:
    (objective,) = recipes.get("distilbert-base").objectives
    assert (objective.soft_weight, objective.weight, objective.cosine_weight, objective.temperature) == (5, 2, 1, 2)
    assert recipes.get("distilbert-base").noise.power == 0.7


@pytest.mark.parametrize("name", ["deberta-base", "albert-tiny"])
def test_any_encoder_of_masked_tokens_can_teach(name: str, store: Store, tmp_path: Path) -> None:
    """DeBERTa predicts from a stream of its own, which it fills only where it is asked."""
    recipe = dataclasses.replace(tiny.recipe(name), tokenizer=tiny.WORDPIECE)
    save(recipe, store, tmp_path)
    taught = changed(tmp_path, copy_layers=False)
    model, batch = begun(taught, store).double(), batch_of(taught, store)
    terms, _ = model(batch)
    theirs = elision.load(tmp_path).model.double()
    real = (batch.doc_ids > 0).flatten().nonzero()[:, 0]
    everywhere = dataclasses.replace(batch, target_at=real, num_targets=len(real), needed_at=None)
    with torch.no_grad():
        scores, expected = (
            torch.log_softmax(one.logits(everywhere).flatten(0, 1)[real] / 2, -1) for one in (model, theirs)
        )
        soft = 4 * F.kl_div(scores, expected, reduction="sum", log_target=True)
    torch.testing.assert_close(terms["soft"].sum, soft, rtol=1e-9, atol=0)


def test_a_teacher_whose_predictions_come_from_a_generator_is_refused(store: Store, tmp_path: Path) -> None:
    save(dataclasses.replace(tiny.recipe("electra-tiny"), tokenizer=tiny.WORDPIECE), store, tmp_path)
    with pytest.raises(InputError, match="predicts tokens by a network beside the one that is its result"):
        begun(changed(tmp_path), store)
