"""Answers to questions about contexts."""

import json
from typing import TYPE_CHECKING, TextIO

from elision.cli.predicting.lines import form_of, write_cells, write_json_line
from elision.errors import InputError
from elision.loaded import Loaded
from elision.progress import Task as Bar
from elision.tasks.answerer import Answerer
from elision.tasks.questions import Question, read_questions

if TYPE_CHECKING:
    from elision.cli.predict import Predict

FORMATS = ("tsv", "csv", "json")


def predict(settings: "Predict", loaded: Loaded, stream: TextIO, bar: Bar) -> None:
    """Write the best answers to every question; with --format json one object of answers by id, as SQuAD's scripts read."""
    answerer = Answerer(loaded.model, loaded.tokenizer, loaded.task)
    questions = _questions(settings)
    form = form_of(settings.format, settings.out, FORMATS)
    if form not in ("jsonl", *FORMATS):
        raise InputError(f"--format is {form!r}: answers are written as jsonl, tsv, csv or json")
    if form in ("tsv", "csv"):
        write_cells(stream, ["id", "question", "answer", "start", "end", "probability"], form)
    by_id: dict[str, str] = {}
    for row, found in zip(questions, answerer.predict(questions, settings.precision, settings.top)):
        answers = [
            {"answer": each.text, "start": each.begin, "end": each.end, "probability": round(each.probability, 6)}
            for each in found
        ]
        if form == "jsonl":
            more = {"others": answers[1:]} if settings.top > 1 else {}
            write_json_line(
                stream, {**({"id": row.id} if row.id else {}), "question": row.question, **answers[0], **more}
            )
        elif form == "json":
            by_id[row.id or row.question] = answers[0]["answer"]
        else:
            for answer in answers:
                write_cells(stream, [row.id, row.question, *answer.values()], form)
        bar.advance()
    if form == "json":
        stream.write(json.dumps(by_id, ensure_ascii=False) + "\n")


def _questions(settings: "Predict") -> list[Question]:
    if not settings.texts:
        return read_questions(settings.data, labelled=False, split="test")
    if len(settings.texts) % 2:
        raise InputError(
            f"this model answers questions: give a question and its context, then the next, not {len(settings.texts)} texts"
        )
    return [Question(question, context) for question, context in zip(settings.texts[::2], settings.texts[1::2])]
