"""Answering, from questions with contexts to an answerer."""

import dataclasses
import itertools
import json
from pathlib import Path

import numpy as np
import pytest
import torch

from elision.data.example import NO_TARGET
from elision.data.frame import FRAMES
from elision.errors import InputError
from elision.objectives.answering import BEGIN, END
from elision.tasks.answer import finetune_answerer, prepare
from elision.tasks.answerer import Answerer, QuestionPlan, best_spans, find_answers
from elision.tasks.encoding import Encoding
from elision.tasks.finetune import Result
from elision.tasks.questions import Answer, Question, read_questions
from elision.tasks.task import Windows
from elision.text.tokenizer import Tokenizer
from tests import tiny
from tests.unit.tasks import toy, toy_tags

SETTINGS = dataclasses.replace(toy.SETTINGS, epochs=15)


@pytest.fixture(scope="module")
def bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return toy.untrained(tmp_path_factory.mktemp("bert") / "model", "bert-tiny")


@pytest.fixture(scope="module")
def trained(bert: Path, tmp_path_factory: pytest.TempPathFactory) -> Result:
    out = tmp_path_factory.mktemp("run") / "answers"
    train, valid = toy_tags.questions(120, 1, answerable=0.7), toy_tags.questions(40, 2, answerable=0.7)
    return finetune_answerer(bert, train, valid, out, SETTINGS)


def test_answers_that_their_neighbours_tell_are_found_and_so_is_their_absence(trained: Result) -> None:
    assert trained.task.unanswerable and trained.by_class == []
    assert trained.metrics["f1"] > 0.9 and trained.metrics["seen_unanswerable"] == 1.0
    assert trained.metrics["f1"] > trained.baseline.value + 0.2
    assert trained.baseline.name.startswith("f1 of ")


def test_a_loaded_answerer_says_where_in_the_context_the_answer_stands(trained: Result) -> None:
    answerer = Answerer.load(trained.folder)
    ((best, second),) = answerer.predict([("ve", "me  no ba ki do su")], top=2)
    assert (best.text, best.begin, best.end) == ("ki", 10, 12)
    assert best.score >= second.score and best.probability > second.probability > 0
    ((none,),) = answerer.predict([Question("ve", "me no su ra")])
    assert (none.text, none.begin, none.end) == ("", 0, 0)


def test_a_causal_model_learns_to_answer_too(tmp_path: Path) -> None:
    base = toy.untrained(tmp_path / "model", "gpt2-tiny")
    # What ends an answer lies behind it: from the left alone, the first word is as much as can be told.
    rows = [
        Question(row.question, row.context, (dataclasses.replace(row.answers[0], text=row.answers[0].text.split()[0]),))
        for row in toy_tags.questions(150, 1)
    ]
    result = finetune_answerer(base, rows[:120], rows[120:], tmp_path / "run", SETTINGS)
    assert result.metrics["f1"] > 0.6 and not result.task.unanswerable


def test_packed_and_unpacked_windows_give_the_same_answers_and_loss(trained: Result, bert: Path) -> None:
    rows = toy_tags.questions(40, 4, answerable=0.7)
    prepared = prepare(bert, rows, rows, SETTINGS)
    model = Answerer.load(trained.folder).model.double()
    (packed, loss), (alone, loss_alone) = (
        find_answers(model, prepared.held_out.plan, rows, trained.task, packing=packing) for packing in (True, False)
    )
    assert loss == pytest.approx(loss_alone, rel=1e-9)
    for ours, theirs in zip(packed, alone, strict=True):
        assert [found.text for found in ours] == [found.text for found in theirs]
        assert [found.score for found in ours] == pytest.approx([found.score for found in theirs], abs=1e-5)


def plan(
    rows: list[Question], windows: Windows = Windows(), max_length: int = 24, frame: str | None = None
) -> tuple[QuestionPlan, Tokenizer]:
    tokenizer = tiny.tokenizer(tiny.BYTES if frame == "causal" else tiny.WORDPIECE)
    backbone = tiny.recipe("gpt2-tiny" if frame == "causal" else "bert-tiny").backbone
    return QuestionPlan(
        rows, tokenizer, Encoding.of(backbone, tokenizer.vocabulary, max_length, frame), windows
    ), tokenizer


@pytest.mark.parametrize("frame", ["bert", "causal"])
def test_the_target_stands_at_the_answer_whatever_the_frame(frame: str) -> None:
    row = Question("ba do", "ki  lume no ra", (Answer("lume no", 4),))
    made, tokenizer = plan([row], frame=frame)
    example = made.example(0)
    (begin,), (end,) = np.flatnonzero(example.targets == BEGIN), np.flatnonzero(example.targets == END)
    assert tokenizer.decode(example.inputs[begin : end + 1]).strip() == "lume no"
    assert (example.targets != NO_TARGET).sum() == 2
    one = plan([dataclasses.replace(row, answers=(Answer("ki", 0),))], frame=frame)[0].example(0)
    assert one.targets[one.targets != NO_TARGET].tolist() == [BEGIN + END]
    none = plan([dataclasses.replace(row, answers=())], frame=frame)[0].example(0)
    assert np.flatnonzero(none.targets != NO_TARGET).tolist() == [none.summary]
    assert none.summary == (0 if FRAMES[frame].summary == "first" else len(none) - 1)
    assert plan([dataclasses.replace(row, answers=None)], frame=frame)[0].example(0).targets is None


def test_a_long_context_is_read_in_overlapping_windows_and_only_those_with_the_answer_have_it() -> None:
    words = ["ba", "do", "ki", "lu", "me", "no", "ra", "su", "ti", "ve"] * 4
    context = " ".join(words)
    row = Question("ki", context, (Answer("no ra", context.index("no ra", 60)),))
    made, tokenizer = plan([row], Windows(stride=7), max_length=20)
    ids = tokenizer.encode(context)
    assert len(made) > 3 and made.num_cut == 1 and made.lengths().max() == 20
    covered = [list(range(window.begin, window.end)) for window in made.windows]
    assert sorted({token for window in covered for token in window}) == list(range(len(ids)))
    assert all(b[0] - a[0] == 7 for a, b in itertools.pairwise(covered))
    holds = 0
    for n, window in enumerate(made.windows):
        example = made.example(n)
        assert example.inputs[made.places(n, example)].tolist() == ids[window.begin : window.end]
        at = np.flatnonzero(example.targets != NO_TARGET)
        if at.tolist() == [example.summary]:
            continue
        assert made.stretch(n, *(at - made.places(n, example)[0])) == (row.answers[0].begin, row.answers[0].begin + 5)
        holds += 1
    assert 1 <= holds < len(made)


def test_the_best_spans_are_those_of_all_pairs_that_fit() -> None:
    scores = np.random.default_rng(0).normal(size=(15, 2))
    every = sorted(
        ((scores[a, 0] + scores[b, 1], a, b) for a in range(15) for b in range(a, min(15, a + 4))), reverse=True
    )
    found = best_spans(scores, Windows(max_answer=4, num_best=15))
    assert [(a, b) for a, b, _ in found] == [(a, b) for _, a, b in every[:15]]
    few = best_spans(scores, Windows(max_answer=4, num_best=2))
    best = [set(np.argsort(-scores[:, side])[:2]) for side in (0, 1)]
    assert all(a in best[0] and b in best[1] and a <= b < a + 4 for a, b, _ in few)


def test_a_question_is_cut_so_that_the_context_has_room() -> None:
    made, _ = plan([Question("ba " * 60, "ki lu me", (Answer("lu", 3),))], max_length=24)
    assert len(made) == 1 and made.lengths().tolist() == [3 + 10 + 3]


def test_other_windows_are_another_run(bert: Path, tmp_path: Path) -> None:
    settings = dataclasses.replace(SETTINGS, steps=1)
    rows = toy_tags.questions(10, 1)
    finetune_answerer(bert, rows, rows, tmp_path / "run", settings)
    with pytest.raises(InputError, match="was started with stride 128, now it is 9"):
        finetune_answerer(bert, rows, rows, tmp_path / "run", settings, windows=Windows(stride=9))
    with pytest.raises(InputError, match="stride is 0: it must be at least 1"):
        Windows(stride=0)
    with pytest.raises(InputError, match="no training question has an answer"):
        prepare(bert, [dataclasses.replace(row, answers=()) for row in rows], rows, settings)


SQUAD = {
    "version": "2.0",
    "data": [
        {
            "title": "T",
            "paragraphs": [
                {
                    "context": "Ann ran. Bob sat.",
                    "qas": [
                        {"id": "1", "question": "Who sat?", "answers": [{"text": "Bob", "answer_start": 9}]},
                        {"id": "2", "question": "Who flew?", "answers": [], "is_impossible": True},
                    ],
                }
            ],
        }
    ],
}


def test_squad_files_and_the_rows_of_datasets_are_read_alike(tmp_path: Path) -> None:
    squad, rows = tmp_path / "dev.json", tmp_path / "dev.jsonl"
    squad.write_text(json.dumps(SQUAD))
    rows.write_text(
        '{"id": "1", "question": "Who sat?", "context": "Ann ran. Bob sat.", "answers": {"text": ["Bob"], "answer_start": [9]}}\n'
        '{"id": "2", "question": "Who flew?", "context": "Ann ran. Bob sat.", "answers": {"text": [], "answer_start": []}}\n'
    )
    for path in (squad, rows):
        first, second = read_questions(str(path))
        assert (first.question, first.context, first.answers, first.id) == (
            "Who sat?", "Ann ran. Bob sat.", (Answer("Bob", 9),), "1",
        )  # fmt: skip
        assert second.answers == ()
    assert [row.answers for row in read_questions(str(squad), labelled=False)] == [None, None]


def test_answers_without_a_place_or_with_a_wrong_one_are_found_and_those_elsewhere_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text(
        '{"question": "q", "context": "a b a b", "answers": ["b"]}\n'
        '{"question": "q", "context": "a b a b", "answers": [{"text": " b", "answer_start": 5}]}\n'
        '{"question": "q", "context": "a b a b", "answer": "b", "is_impossible": false}\n'
    )
    assert [row.answers for row in read_questions(str(path))] == [
        (Answer("b", 2),),
        (Answer("b", 6),),
        (Answer("b", 2),),
    ]
    path.write_text('{"question": "q", "context": "a b", "answers": ["c"]}\n')
    with pytest.raises(InputError, match=r"a\.jsonl:1: the answer 'c' is not in its context"):
        read_questions(str(path))
    path.write_text('{"question": "q", "context": "a b"}\n')
    with pytest.raises(InputError, match=r"a\.jsonl:1: the answers are missing"):
        read_questions(str(path))
    path.write_text('{"question": "q", "answers": []}\n')
    with pytest.raises(InputError, match=r"a\.jsonl:1: the context is missing"):
        read_questions(str(path))
    broken = tmp_path / "b.json"
    broken.write_text('{"data": [{"paragraphs": [{"qas": []}, {"context": "x"}]}]}')
    with pytest.raises(InputError, match="is not of SQuAD's form"):
        read_questions(str(broken))


def test_scores_of_a_trained_model_do_not_depend_on_who_else_is_asked(trained: Result) -> None:
    answerer = Answerer.load(trained.folder)
    rows = toy_tags.questions(30, 6)
    together = [found[0] for found in answerer.predict(rows, "float32")]
    alone = [next(answerer.predict([row], "float32"))[0] for row in rows]
    assert [found.text for found in together] == [found.text for found in alone]
    torch.testing.assert_close(
        torch.tensor([found.score for found in together]),
        torch.tensor([found.score for found in alone]),
        rtol=0,
        atol=1e-4,
    )
