"""Answerers: those of transformers give the begins and ends that ours do, read or written; answers are the best by hand."""

import dataclasses
from pathlib import Path

import pytest
import torch
import transformers

import elision
from elision.export.reading import read_folder, write_checkpoint
from elision.export.writing import write_folder
from elision.model.language_model import LanguageModel
from elision.tasks.answerer import Answerer
from elision.tasks.task import AnsweringTask, Windows, save_task
from elision.train.checkpoint import write_weights
from tests import tiny
from tests.parity import reference

pytestmark = pytest.mark.parity

QUESTIONS = [
    ("ba do", "ki lume no ra su ti"),
    ("ve", "lu lu ba . ki ra dome ve"),
    ("no su ti", "ba"),
    ("ra", "ki ba me su no do"),
]
CLASSES = {
    "bert-tiny": transformers.BertForQuestionAnswering,
    "gpt2-tiny": transformers.GPT2ForQuestionAnswering,
}
TASK = AnsweringTask(max_length=20, unanswerable=True, windows=Windows(max_answer=3))


def save_answerer(folder: Path, name: str, pooler: bool) -> None:
    recipe = tiny.recipe(name)
    if name == "bert-tiny":
        recipe = dataclasses.replace(recipe, backbone=dataclasses.replace(recipe.backbone, pooler=pooler))
    tokenizer = tiny.tokenizer(recipe.tokenizer)
    folder.mkdir()
    recipe.save(folder / "recipe.json")
    tokenizer.save(folder / "tokenizer")
    save_task(TASK, folder)
    torch.manual_seed(0)
    model = reference.scrambled(LanguageModel(recipe.backbone, (TASK.objective,), tokenizer.vocabulary.size))
    with torch.no_grad():
        # So that words, not the bias alone, decide.
        model.heads["answering"].output.weight.mul_(8)
    write_weights(folder, model)


def by_hand(model: torch.nn.Module, tokenizer: object, question: str, context: str, max_answer: int) -> list[tuple]:
    """Return (score, answer) of every stretch of the context and of "no answer", the best first."""
    encoded = tokenizer(question, context, return_tensors="pt", return_offsets_mapping=True)
    spans = encoded.pop("offset_mapping")[0].tolist()
    sides = encoded.sequence_ids(0)
    with torch.no_grad():
        scores = model(**encoded)
    begins, ends = scores.start_logits[0], scores.end_logits[0]
    summary = 0 if model.config.model_type == "bert" else len(spans) - 1
    found = {(0, 0): float(begins[summary] + ends[summary])}
    inside = [n for n, side in enumerate(sides) if side == 1 and spans[n][0] < spans[n][1]]
    for first in inside:
        for last in inside:
            if first <= last < first + max_answer:
                covered = context[spans[first][0] : spans[last][1]]
                begin = spans[first][0] + len(covered) - len(covered.lstrip())
                end = begin + len(covered.strip())
                if begin < end:
                    score = float(begins[first] + ends[last])
                    found[begin, end] = max(score, found.get((begin, end), score))
    return sorted(((score, context[begin:end]) for (begin, end), score in found.items()), reverse=True)


def compare(answerer: Answerer, model: torch.nn.Module, tokenizer: object) -> None:
    answered = list(answerer.predict(QUESTIONS, "float32", top=5))
    for (question, context), ours in zip(QUESTIONS, answered, strict=True):
        theirs = by_hand(model, tokenizer, question, context, answerer.task.windows.max_answer)[:5]
        assert [found.text for found in ours] == [text for _, text in theirs]
        assert [found.score for found in ours] == pytest.approx([score for score, _ in theirs], abs=2e-5)
        assert all(context[found.begin : found.end] == found.text for found in ours)
    assert len({found[0].text for found in answered}) > 2


@pytest.mark.parametrize("pooler", [True, False])
@pytest.mark.parametrize("name", CLASSES)
def test_what_we_write_gives_our_answers(name: str, pooler: bool, tmp_path: Path) -> None:
    save_answerer(tmp_path / "ours", name, pooler)
    assert write_folder(elision.load(tmp_path / "ours"), tmp_path / "out") == CLASSES[name].__name__
    theirs, report = transformers.AutoModelForQuestionAnswering.from_pretrained(
        tmp_path / "out", output_loading_info=True
    )
    assert not report["missing_keys"] and not report["unexpected_keys"], report
    compare(Answerer.load(tmp_path / "ours"), theirs, transformers.AutoTokenizer.from_pretrained(tmp_path / "out"))


@pytest.mark.parametrize("name", CLASSES)
def test_what_they_write_keeps_its_head(name: str, tmp_path: Path) -> None:
    theirs = (reference.bert if name == "bert-tiny" else reference.gpt2)(CLASSES[name])
    theirs.save_pretrained(tmp_path / "theirs")
    tiny.tokenizer(tiny.WORDPIECE if name == "bert-tiny" else tiny.BYTES).save(tmp_path / "theirs")
    imported = read_folder(tmp_path / "theirs")
    assert imported.notes == [] and imported.task.type == "answering"
    write_checkpoint(imported, tmp_path / "ours")
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path / "theirs")
    for folder in ("theirs", "ours"):
        compare(Answerer.load(tmp_path / folder), theirs, tokenizer)
    write_folder(elision.load(tmp_path / "ours", dtype="stored"), tmp_path / "again")
    again = CLASSES[name].from_pretrained(tmp_path / "again")
    for key, value in theirs.state_dict().items():
        assert torch.equal(again.state_dict()[key][: len(value)], value), key
