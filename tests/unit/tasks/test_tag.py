"""Tagging, from tagged texts to a tagger."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch

from elision.data.example import NO_TARGET
from elision.errors import InputError
from elision.tasks.answerer import Answerer
from elision.tasks.encoding import Encoding
from elision.tasks.finetune import Result
from elision.tasks.split import hold_out
from elision.tasks.tag import finetune_tagger, prepare
from elision.tasks.tagged import joined
from elision.tasks.tagger import TaggedPlan, Tagger, tag_scores
from elision.train import checkpoint
from tests import tiny
from tests.unit.tasks import toy, toy_tags

LABELS = ("O", "B-LOC", "I-LOC", "B-PER", "I-PER")
SETTINGS = dataclasses.replace(toy.SETTINGS, epochs=6)


@pytest.fixture(scope="module", params=["bert-tiny", "gpt2-tiny"])
def base(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return toy.untrained(tmp_path_factory.mktemp("base") / "model", request.param)


@pytest.fixture(scope="module")
def bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return toy.untrained(tmp_path_factory.mktemp("bert") / "model", "bert-tiny")


@pytest.fixture(scope="module")
def trained(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Result:
    out = tmp_path_factory.mktemp("run") / "names"
    return finetune_tagger(base, toy_tags.texts(80, 1), toy_tags.texts(30, 2), out, SETTINGS)


def test_names_that_words_tell_are_all_found(trained: Result) -> None:
    assert trained.task.labels == LABELS and trained.task.unit == "words"
    assert trained.metrics["f1"] == 1.0 and trained.metrics["accuracy"] == 1.0
    assert {line.label: line.f1 for line in trained.by_class} == {"LOC": 1.0, "PER": 1.0}
    assert trained.baseline.name == "f1 of each word's commonest tag"


def test_a_loaded_tagger_finds_entities_in_plain_text_lists_of_words_and_tagged_texts(trained: Result) -> None:
    tagger = Tagger.load(trained.folder)
    for text in ("me ba do su", ["me", "ba", "do", "su"], joined(["me", "ba", "do", "su"], None, "words")):
        (found,) = tagger.predict([text])
        assert found.tokens == ["me", "ba", "do", "su"]
        assert found.tags == ["O", "B-PER", "I-PER", "O"]
        (name,) = found.entities
        assert found.text[name.begin : name.end] == name.text == "ba do" and name.type == "PER"
        assert 0.3 < name.probability <= 1
    assert [each.tags for each in tagger.predict([])] == []


def test_packed_and_unpacked_texts_get_the_same_scores(trained: Result, base: Path) -> None:
    prepared = prepare(base, toy_tags.texts(10, 1), toy_tags.texts(40, 2), SETTINGS)
    model = Tagger.load(trained.folder).model.double()
    packed = tag_scores(model, prepared.held_out.plan)
    alone = tag_scores(model, prepared.held_out.plan, packing=False)
    torch.testing.assert_close(packed, alone, rtol=1e-6, atol=1e-6)
    assert packed.std(0).min() > 0.1


def test_an_interrupted_tagging_ends_with_the_weights_of_an_undisturbed_one(bert: Path, tmp_path: Path) -> None:
    class Killed(Exception):
        pass

    settings = dataclasses.replace(SETTINGS, epochs=3)

    def kill(progress: object) -> None:
        if progress.split == "validation" and progress.step > 15:
            raise Killed

    train, valid = toy_tags.texts(80, 1), toy_tags.texts(30, 2)
    with pytest.raises(Killed):
        finetune_tagger(bert, train, valid, tmp_path / "killed", settings, report=kill)
    stopped = checkpoint.read_index(tmp_path / "killed")["last"]
    assert stopped is not None and 0 < int(stopped.removeprefix("step-")) < 30
    again = finetune_tagger(bert, train, valid, tmp_path / "killed", settings)
    undisturbed = finetune_tagger(bert, train, valid, tmp_path / "whole", settings)
    ours, theirs = (checkpoint.read_weights(checkpoint.find(r.folder, "last")) for r in (again, undisturbed))
    assert ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)
    assert again.metrics == undisturbed.metrics and again.best_step == undisturbed.best_step


def plan(texts: list, spec: object = tiny.WORDPIECE, max_length: int = 24, labels: tuple = LABELS) -> TaggedPlan:
    tokenizer = tiny.tokenizer(spec)
    recipe = tiny.recipe("bert-tiny" if spec is tiny.WORDPIECE else "gpt2-tiny")
    return TaggedPlan(texts, tokenizer, Encoding.of(recipe.backbone, tokenizer.vocabulary, max_length), labels)


@pytest.mark.parametrize("spec", [tiny.WORDPIECE, tiny.BYTES], ids=["wordpiece", "bytes"])
def test_only_the_first_token_of_a_word_has_a_target(spec: object) -> None:
    tokenizer = tiny.tokenizer(spec)
    words = ["ba", "qqxqq", "lume", "."]
    text = joined(words, ["O", "B-PER", "I-PER", "O"], "words")
    made = plan([text], spec)
    example = made.example(0)
    at = np.flatnonzero(example.targets != NO_TARGET)
    assert example.targets[at].tolist() == [0, 3, 4, 0]
    assert not example.special[at].any()
    # What stands from one marked place to the next are the tokens of one word.
    pieces = [example.inputs[begin:end] for begin, end in zip(at, [*at[1:], len(example)])]
    spelled = [tokenizer.decode([i for i in ids if not tokenizer.vocabulary.special[i]]).strip() for ids in pieces]
    assert spelled[0] == "ba" and spelled[2:] == ["lume", "."]
    assert made.lengths().tolist() == [len(example)]


def test_characters_that_share_a_token_have_its_tag_and_go_on_with_its_entity() -> None:
    text = joined(list("me ba do"), ["O"] * 3 + ["B-PER"] + ["I-PER"] * 4, "characters")
    made = plan([text])
    assert text.text == "me ba do"
    at = made.example(0).targets
    assert at[at != NO_TARGET].tolist() == [0, 3, 4]
    # The space has no token, and no tag of its own.
    assert made.tags(np.array([0, 3, 4]), LABELS) == [["O", "O", "O", "B-PER", "I-PER", "O", "I-PER", "I-PER"]]


def test_a_long_text_is_read_in_parts_that_end_before_a_word_and_every_word_is_tagged() -> None:
    words = ["ba", "do", "ki", "lume", "no", "ra", "su", "ti"] * 6
    text = joined(words, ["O"] * len(words), "words")
    made = plan([text], max_length=13)
    assert len(made) > 3 and made.num_cut == 1 and made.lengths().max() <= 13
    assert (
        made.num_places
        == len(words)
        == sum(int((made.example(n).targets != NO_TARGET).sum()) for n in range(len(made)))
    )
    for n in range(len(made)):
        example = made.example(n)
        assert example.targets[~example.special][0] != NO_TARGET, "a part begins with a word"
    assert len(made.tags(np.zeros(made.num_places, int), LABELS)[0]) == len(words)


def test_held_out_tags_that_training_never_saw_are_refused_but_a_rare_beginning_is_not(bert: Path) -> None:
    train = toy_tags.texts(20, 1)
    with pytest.raises(
        InputError, match=r"dev:4: the tag 'B-ORG' is none of the training data's \(B-LOC, B-PER, I-LOC"
    ):
        prepare(bert, train, [joined(["ba"], ["B-ORG"], "words", "dev:4")], SETTINGS)
    only_b = [joined(["ba", "me"], ["B-X", "O"], "words")] * 4
    prepared = prepare(bert, only_b, [joined(["ba", "do"], ["B-X", "I-X"], "words")], SETTINGS)
    assert prepared.task.labels == ("O", "B-X", "I-X")


def test_a_folder_of_another_run_or_another_task_is_refused(bert: Path, tmp_path: Path) -> None:
    settings = dataclasses.replace(SETTINGS, steps=2)
    train, valid = toy_tags.texts(20, 1), toy_tags.texts(10, 2)
    finetune_tagger(bert, train, valid, tmp_path / "run", settings)
    with pytest.raises(InputError, match="another model or on other rows"):
        finetune_tagger(bert, train[1:], valid, tmp_path / "run", settings)
    with pytest.raises(InputError, match="it cannot answer"):
        Answerer.load(tmp_path / "run")


def test_tags_that_mark_no_entities_are_measured_word_by_word(bert: Path, tmp_path: Path) -> None:
    def parts(num: int, seed: int) -> list:
        texts = toy_tags.texts(num, seed)
        return [joined(t.tokens, ["VERB" if tag == "O" else "NAME" for tag in t.tags], "words") for t in texts]

    result = finetune_tagger(bert, parts(80, 1), parts(20, 2), tmp_path / "run", SETTINGS)
    assert result.task.metric == "accuracy" and result.metrics["accuracy"] > 0.95
    assert {"accuracy", "macro_f1", "weighted_f1"} <= result.metrics.keys() and "precision" not in result.metrics
    assert [line.label for line in result.by_class] == ["NAME", "VERB"]
    (found,) = Tagger.load(result.folder).predict(["ba me"])
    assert found.entities == []


def test_what_is_held_out_depends_on_the_number_of_groups_alone() -> None:
    rows = [(n, n // 3) for n in range(30)]
    rest, held = hold_out(rows, 0.2, group=lambda row: row[1])
    assert len({group for _, group in held}) == 2 and len(held) == 6
    assert not {group for _, group in held} & {group for _, group in rest}
    other_labels = [(n, 100 + n // 3) for n in range(30)]
    assert [n for n, _ in hold_out(other_labels, 0.2, group=lambda row: row[1])[1]] == [n for n, _ in held]
    assert len(hold_out(list(range(3)), 0.01)[1]) == 1
    with pytest.raises(InputError, match="too little"):
        hold_out([1], 0.5)
    with pytest.raises(InputError, match=r"hold_out is 1\.5"):
        hold_out(rows, 1.5)
