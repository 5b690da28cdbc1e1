"""Recipes that read several kinds of batches in turn: a step of each, one model, one output layer."""

import dataclasses
import itertools
import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

import elision
from elision import recipes
from elision.cli.pretrain import parse
from elision.data.batch import Batch
from elision.data.loader import Loader
from elision.data.mixing import LanguageMix
from elision.data.noise import BernoulliMask, GivenAnswer, NextToken, SpanCorruption, TokenMask
from elision.data.segment import Chunks, MemoryStreams, SourceTarget, TranslationPairs
from elision.data.store import Store
from elision.data.turns import Turn
from elision.errors import InputError
from elision.objectives import MaskedLM, TiedLM
from elision.recipe import Recipe
from elision.tasks.classify import finetune_classifier
from elision.tasks.finetune import FineTune
from elision.tasks.labelled import Row
from elision.train import loop
from elision.train.checkpoint import read_weights
from elision.train.loop import NonFiniteLoss, fit
from elision.train.metrics import read_metrics
from elision.train.pretrain import loader_of, prepare_run
from tests import tiny

CLM = Turn("clm", Chunks(max_length=24), NextToken(), causal=True, mixing=LanguageMix(1.0))
# XLM's three objectives: masked text, masked translations, next tokens.
ALL = dataclasses.replace(tiny.recipe("xlm-tiny"), turns=(*tiny.recipe("xlm-tiny").turns, CLM))


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave out the measurement of the machine."""
    monkeypatch.setattr(loop, "matmul_peak", lambda device, dtype: 1e9)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    spec = tiny.recipe("xlm-tiny").tokenizer
    return tiny.text_store(tmp_path_factory.mktemp("store") / "xlm", spec, num_pairs=60)


def with_train(recipe: Recipe, **settings: object) -> Recipe:
    return dataclasses.replace(recipe, train=dataclasses.replace(recipe.train, **settings))


def test_step_s_of_n_kinds_is_step_s_div_n_of_kind_s_mod_n(store: Store) -> None:
    loader = loader_of(ALL, store.split("train"), store.tokenizer.vocabulary, 8)
    alone = [dataclasses.replace(loader, turns=()), *loader.turns]
    assert loader.num_kinds == 3
    for step in range(7):
        (mixed,), (single,) = loader.microbatches(step), alone[step % 3].microbatches(step // 3)
        assert mixed.turn == ("", "tlm", "clm")[step % 3]
        assert mixed.fingerprint() == single.fingerprint() and mixed.examples == single.examples
        assert mixed.causal == (step % 3 == 2)
    skipped = frozenset({1, 3})
    read = [batches[0].turn for batches in loader.stream(0, 4, skipped)]
    assert read == [("", "tlm", "clm")[step % 3] for step in (0, 2, 4, 5)]
    assert {batch.turn for batch in loader.in_order(4)} == {"", "tlm", "clm"}


def test_each_kind_reports_its_loss_by_name_and_held_out_loss_is_their_mean(store: Store, tmp_path: Path) -> None:
    recipe = with_train(ALL, steps=9, log_every=3, eval_every=9)
    fit(prepare_run(recipe, store, tmp_path / "run"))
    lines = read_metrics(tmp_path / "run")
    for line in lines:
        assert {"mlm", "tlm", "clm", "loss"} <= line.keys(), line
        mean = (line["mlm"] + line["tlm"] + line["clm"]) / 3
        assert line["loss"] == pytest.approx(mean, rel=1e-6)
    assert [line["split"] for line in lines] == ["train"] * 3 + ["validation"]
    # Between lines that come more often than the turns, a kind may be missing.
    fit(prepare_run(with_train(recipe, steps=2, log_every=1), store, tmp_path / "short"))
    first, second = [line for line in read_metrics(tmp_path / "short") if line["split"] == "train"]
    assert "mlm" in first and "tlm" not in first and "tlm" in second and "mlm" not in second
    assert "bits_per_byte" in first and "bits_per_byte" not in second


def test_all_kinds_share_one_output_layer_and_the_causal_one_sees_no_future(store: Store) -> None:
    torch.manual_seed(0)
    model = tiny.model(ALL, store).eval()
    assert [name for name, _ in model.named_parameters() if name.startswith("heads.")] == ["heads.mlm.bias"]
    loader = loader_of(ALL, store.split("train"), store.tokenizer.vocabulary, 4)
    causal = loader.turns[1].microbatches(0)[0]
    with torch.no_grad():
        whole = model.logits(causal)
        changed = causal.inputs.clone()
        changed[:, 12:] = (changed[:, 12:] + 5) % 300
        other = model.logits(dataclasses.replace(causal, inputs=changed))
        # What precedes the change stays bit for bit; the same batch read from both sides does not.
        assert torch.equal(other[:, :12], whole[:, :12]) and not torch.equal(other[:, 12:], whole[:, 12:])
        both_sides = dataclasses.replace(causal, causal=False, inputs=changed)
        assert not torch.equal(model.logits(both_sides)[:, :12], whole[:, :12])
        # h E^T + b and nothing else.
        hidden = model.backbone(causal).hidden
        torch.testing.assert_close(whole, hidden @ model.backbone.table.T + model.heads["mlm"].bias)


def test_swapping_languages_changes_what_comes_out_and_cannot_where_there_is_one(store: Store) -> None:
    loader = loader_of(ALL, store.split("train"), store.tokenizer.vocabulary, 4)
    batch = loader.turns[0].microbatches(0)[0]
    swapped = dataclasses.replace(batch, languages=1 - batch.languages)
    for num_languages in (2, 1, 0):
        backbone = dataclasses.replace(ALL.backbone, num_languages=num_languages)
        model = tiny.model(dataclasses.replace(ALL, backbone=backbone), store).eval()
        with torch.no_grad():
            assert torch.equal(model.logits(batch), model.logits(swapped)) == (num_languages < 2)


def test_numbers_of_languages_are_fixed_by_the_recipe_and_noted_when_a_run_starts(store: Store, tmp_path: Path) -> None:
    recipe = with_train(tiny.recipe("xlm-tiny"), steps=1)
    fit(prepare_run(recipe, store, tmp_path / "run"))
    assert Recipe.load(tmp_path / "run" / "recipe.json").languages == ("aa", "bb")
    named = dataclasses.replace(recipe, languages=("cc", "bb", "aa"))
    split = store.split("train")
    assert named.language_numbers(split).tolist() == [2, 1]
    for one, other in zip(
        loader_of(recipe, split, store.tokenizer.vocabulary, 8).microbatches(1),
        loader_of(named, split, store.tokenizer.vocabulary, 8).microbatches(1),
    ):
        assert torch.equal(one.inputs, other.inputs) and torch.equal(
            other.languages[one.doc_ids > 0], (2 - one.languages)[one.doc_ids > 0]
        )
    # A run that goes on from another keeps its numbers.
    later = prepare_run(recipe, store, tmp_path / "later", init_from=tmp_path / "run")
    assert Recipe.load(later.folder / "recipe.json").languages == ("aa", "bb")
    # And it is resumed by the recipe as it was given.
    assert prepare_run(recipe, store, tmp_path / "run").train.steps == 1


@pytest.mark.parametrize("at", [1, 2, 4])
def test_a_run_that_died_between_turns_goes_on_bit_for_bit(
    store: Store, tmp_path: Path, at: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = with_train(ALL, steps=7, checkpoint_every=1, keep_checkpoints=9, log_every=3)
    fit(prepare_run(recipe, store, tmp_path / "whole"))
    steps = Loader.stream

    def dies(loader: Loader, *given: object) -> Iterator[list[Batch]]:
        yield from itertools.islice(steps(loader, *given), at)
        raise KeyboardInterrupt

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(Loader, "stream", dies)
        fit(prepare_run(recipe, store, tmp_path / "died"))
    fit(prepare_run(recipe, store, tmp_path / "died"))
    one, other = (read_weights(tmp_path / name / "checkpoints" / "step-00000007") for name in ("whole", "died"))
    assert all(torch.equal(one[name], other[name]) for name in one)
    lines, others = (read_metrics(tmp_path / name) for name in ("whole", "died"))
    for name in ("mlm", "tlm", "clm", "loss"):
        assert [line.get(name) for line in lines] == [line.get(name) for line in others]


def test_a_loss_that_is_no_number_is_blamed_on_the_turn_that_had_it(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = with_train(ALL, steps=6, log_every=6)
    run = prepare_run(recipe, store, tmp_path / "run")
    real = type(run.model).forward

    def broken(model, batch, carry=None):
        terms, carry = real(model, batch, carry)
        if batch.turn == "clm":
            terms = {name: dataclasses.replace(term, sum=term.sum * float("nan")) for name, term in terms.items()}
        return terms, carry

    monkeypatch.setattr(type(run.model), "forward", broken)
    with pytest.raises(NonFiniteLoss, match="clm is nan at step 2"):
        fit(run)


def test_a_budget_of_tokens_counts_every_kind(store: Store, tmp_path: Path) -> None:
    recipe = with_train(ALL, budget="4000 tokens")
    run = prepare_run(recipe, store, tmp_path / "run")
    read = [sum(batch.num_tokens for batch in step) for step in run.data.stream(0, 18)]
    assert run.train.steps == round(4000 / np.mean(read))


def test_turns_go_to_json_and_back_and_are_options_of_the_command_line(store: Store) -> None:
    assert Recipe.from_dict(json.loads(json.dumps(ALL.to_dict()))) == ALL
    changed = ALL.override({"turns.0.segmenter.max_length": 20, "turns.1.causal": True})
    assert changed.turns[0].segmenter.max_length == 20
    given = [
        "xlm-tiny",
        "--data",
        str(store.path),
        "--turns.0.segmenter.max-length",
        "48",
        "--turns.0.noise.rate",
        "0.3",
    ]
    recipe = parse(given).recipe
    assert recipe.turns[0].segmenter.max_length == 48 and recipe.turns[0].noise.rate == 0.3
    assert recipe.turned("tlm").segmenter == recipe.turns[0].segmenter and recipe.turned("tlm").turns == ()
    with pytest.raises(InputError, match=r"has no turn 'tml'; it has: tlm, clm"):
        ALL.turned("tml")


TURN = ALL.turns[0]
BERT = recipes.get("bert-tiny")


@pytest.mark.parametrize(
    ("recipe", "parts", "message"),
    [
        (ALL, {"turns": (dataclasses.replace(CLM, causal=False),)},
         "turn clm: NextToken leaves out the future, which backbone.visibility 'bidirectional' shows"),
        (ALL, {"turns": (dataclasses.replace(TURN, causal=True),)}, "turn tlm: BernoulliMask masks tokens that are to be"),
        (ALL, {"turns": (TURN, TURN)}, "a turn is called 'tlm': give every turn a name of its own"),
        (ALL, {"turns": (dataclasses.replace(TURN, name="mlm"),)}, "a turn is called 'mlm'"),
        (ALL, {"turns": (dataclasses.replace(TURN, name=""),)}, "a turn is called ''"),
        (ALL, {"turns": (dataclasses.replace(TURN, segmenter=TranslationPairs(99)),)},
         "turn tlm: segmenter.max_length is 99, but backbone.positions.num_positions is 32"),
        (ALL, {"turns": (dataclasses.replace(TURN, segmenter=Chunks(24), mixing=None),)},
         "turn tlm: backbone.num_languages is 8, but nothing says which language"),
        (ALL, {"mixing": None}, "backbone.num_languages is 8, but nothing says which language a token of Chunks is of"),
        (ALL, {"languages": tuple("abcdefghi")}, "languages names 9 (a, b"),
        (BERT, {"turns": (Turn("tlm", TranslationPairs(24), BernoulliMask()),)},
         "turn tlm: NextSentence needs 2 labels for each example, but TranslationPairs gives none"),
        (recipes.get("xlm-tiny-clm"), {"noise": BernoulliMask(), "objectives": (TiedLM(),)},
         "BernoulliMask masks tokens that are to be restored from both sides"),
        (recipes.get("gpt2-tiny"), {"turns": (Turn("tlm", TranslationPairs(24), NextToken()),), "objectives": (MaskedLM(),)},
         "MaskedLM restores masked tokens"),
    ],
)  # fmt: skip
def test_turns_and_languages_that_do_not_fit_are_refused_with_the_reason(
    recipe: Recipe, parts: dict, message: str
) -> None:
    with pytest.raises(InputError) as refusal:
        dataclasses.replace(recipe, **parts)
    assert message in str(refusal.value)


def test_a_turn_that_reads_translations_needs_a_store_that_has_some(wordpiece_store: Store, tmp_path: Path) -> None:
    recipe = tiny.recipe("bert-tiny")
    recipe = dataclasses.replace(
        recipe, segmenter=Chunks(24), objectives=(MaskedLM(),), turns=(Turn("tlm", TranslationPairs(24), TokenMask()),),
        tokenizer=recipes.get("xlm-tiny").tokenizer,
    )  # fmt: skip
    with pytest.raises(InputError, match="holds no translations"):
        loader_of(recipe, wordpiece_store.split("train"), tiny.vocabulary(300), 8)


def test_streams_that_are_remembered_take_no_turns(store: Store) -> None:
    xlnet = tiny.recipe("xlnet-tiny")
    assert isinstance(xlnet.segmenter, MemoryStreams)
    recipe = dataclasses.replace(xlnet, turns=(Turn("more", xlnet.segmenter, xlnet.noise),))
    with pytest.raises(InputError, match="MemoryStreams makes streams that go on from step to step"):
        loader_of(recipe, store.split("train"), tiny.vocabulary(300), 8)


def test_languages_that_a_model_does_not_know_or_a_document_does_not_say_are_refused(
    store: Store, bytes_store: Store, tmp_path: Path
) -> None:
    recipe = tiny.recipe("xlm-tiny-mlm")
    with pytest.raises(InputError, match=r"has text in bb, which is none of the model's languages \(aa\)"):
        dataclasses.replace(recipe, languages=("aa",)).language_numbers(store.split("train"))
    few = dataclasses.replace(recipe, backbone=dataclasses.replace(recipe.backbone, num_languages=2))
    assert few.language_numbers(store.split("train")).tolist() == [0, 1]
    made_with = store.tokenizer
    three = tiny.id_store(tmp_path / "3", made_with, [[[5, 6]]] * 3, languages=["aa", "bb", "cc"])
    with pytest.raises(InputError, match=r"has 3 languages \(aa, bb, cc\), but backbone.num_languages is 2"):
        few.language_numbers(three.split("train"))
    nameless = tiny.id_store(tmp_path / "none", made_with, [[[5, 6]]] * 3, languages=["aa", None, None])
    with pytest.raises(InputError, match=r"2 documents of the store .* do not declare their language"):
        recipe.language_numbers(nameless.split("train"))


def test_roberta_learns_from_translations_too_and_has_no_use_for_their_languages(store: Store, tmp_path: Path) -> None:
    roberta = with_train(tiny.recipe("roberta-tiny"), steps=4, log_every=2)
    turn = Turn("tlm", TranslationPairs(24), roberta.noise, mixing=LanguageMix(0.5))
    recipe = dataclasses.replace(roberta, turns=(turn,))
    run = prepare_run(recipe, store, tmp_path / "run")
    batch = run.data.turns[0].microbatches(0)[0]
    assert batch.languages is None and not any("language" in name for name, _ in run.model.named_parameters())
    fit(run)
    assert {"mlm", "tlm"} <= read_metrics(tmp_path / "run")[0].keys()


def test_several_losses_of_a_turn_are_named_after_it(wordpiece_store: Store) -> None:
    bert = tiny.recipe("bert-tiny")
    recipe = dataclasses.replace(bert, turns=(Turn("more", bert.segmenter, TokenMask(rate=0.3)),))
    model = tiny.model(recipe, wordpiece_store)
    loader = loader_of(recipe, wordpiece_store.split("train"), wordpiece_store.tokenizer.vocabulary, 8)
    (batch,) = loader.microbatches(1)
    assert batch.turn == "more" and set(model(batch)[0]) == set(model.counts(batch)) == {"more", "more_nsp"}


def test_fine_tuning_reads_the_language_that_it_is_told_and_so_does_what_follows(store: Store, tmp_path: Path) -> None:
    recipe = with_train(tiny.recipe("xlm-tiny"), steps=2)
    fit(prepare_run(recipe, store, tmp_path / "run"))
    rows = [Row("ba do ki", "a"), Row("lu me no", "b")] * 8
    result = finetune_classifier(tmp_path / "run", rows, rows[:4], tmp_path / "tuned", FineTune(steps=2, language="bb"))
    tuned = elision.load(result.folder)
    assert tuned.recipe.default_language == "bb" and tuned.model.backbone.embeddings.language == 1
    assert elision.load(result.folder, language="aa").model.backbone.embeddings.language == 0
    with pytest.raises(InputError, match=r"language is .zz.; .* knows: aa, bb"):
        elision.load(result.folder, language="zz")
    pretrained = elision.load(tmp_path / "run")
    ids = torch.arange(5, 12)
    told = [elision.load(tmp_path / "run", language=name).logits(ids) for name in ("aa", "bb")]
    assert torch.equal(pretrained.logits(ids), told[0]) and not torch.equal(*told)
    assert torch.equal(pretrained.logits(ids, languages=[1] * 7), told[1])
    with pytest.raises(InputError, match=r"languages\[0\]\[0\] is 8: the language table"):
        pretrained.logits(ids, languages=[8] * 7)
    with pytest.raises(InputError, match="has no embeddings of languages"):
        fit(prepare_run(with_train(tiny.recipe("roberta-tiny"), steps=1), store, tmp_path / "roberta"))
        elision.load(tmp_path / "roberta", language="aa")
    assert pretrained.fill("ba <mask> ki").blanks[0]


def test_sentinels_are_counted_before_a_run_begins() -> None:
    words = dataclasses.replace(tiny.vocabulary(100), sentinels=np.arange(90, 93))
    kind = dataclasses.replace(ALL.turns[0], segmenter=Chunks(max_length=60, separated=False), noise=SpanCorruption())
    kind.check(dataclasses.replace(words, sentinels=np.arange(90, 95)))
    with pytest.raises(InputError, match="an example of 60 tokens needs 3 sentinels, but the tokenizer has 2"):
        kind.check(dataclasses.replace(words, sentinels=np.arange(90, 92)))


def test_answers_that_are_shorter_than_sources_take_shorter_rows() -> None:
    pairs = dataclasses.replace(
        ALL.turns[0], segmenter=SourceTarget(max_length=48, max_answer_length=12), noise=GivenAnswer()
    )
    assert pairs.lengths == (48, 12)
