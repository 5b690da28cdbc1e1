"""Labels and scores of texts and pairs of texts."""

import itertools
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, TextIO

from elision.cli.predicting.lines import form_of, write_cells, write_json_line
from elision.errors import InputError
from elision.loaded import Loaded
from elision.progress import Task as Bar
from elision.tasks.classifier import Classifier, Prediction
from elision.tasks.labelled import Row, text_of
from elision.tasks.table import Columns, read_table
from elision.tasks.task import Task

if TYPE_CHECKING:
    from elision.cli.predict import Predict

FORMATS = ("tsv", "csv")


def predict(settings: "Predict", loaded: Loaded, stream: TextIO, bar: Bar) -> None:
    """Write a label or a score for every text."""
    classifier = Classifier(loaded.model, loaded.tokenizer, loaded.task)
    rows = _given(settings, classifier.task) if settings.texts else _read(settings, classifier.task)
    first = next(rows)
    kept: list[Row] = []

    def remembered() -> Iterator[Row]:
        for row in itertools.chain([first], rows):
            kept.append(row)
            yield row

    write = _writer(settings, stream, classifier.task, first.pair is not None)
    for prediction in classifier.predict(remembered(), settings.precision):
        # The classifier reads ahead by a block; what it has answered is no longer held.
        write(kept.pop(0), prediction)
        bar.advance()


def _read(settings: "Predict", task: Task) -> Iterator[Row]:
    """Yield the texts of the table, from the columns that the options name, else those of the training table."""
    header = not settings.no_header
    found: Columns | None = None
    for where, values in read_table(settings.data, header=header, split="test"):
        if found is None:
            found = _columns(settings, task, list(values), where)
        pair = None if found.pair is None else text_of(values, found.pair, where)
        yield Row(text_of(values, found.text, where), None, pair, where)
    if found is None:
        raise InputError(f"{settings.data} holds no rows.")


def _columns(settings: "Predict", task: Task, there: list[str], where: str) -> Columns:
    text, pair = settings.text_column, settings.pair_column
    if text is None and pair is None and not settings.no_header and task.columns.header and task.columns.text in there:
        text = task.columns.text
        pair = task.columns.pair if task.columns.pair in there else None
    found = Columns(text, None if task.pair is False else pair, header=not settings.no_header).resolve(
        there, where, labelled=False, single=task.pair is False
    )
    if task.pair and found.pair is None:
        raise InputError(
            f"{where}: this model reads pairs of texts: name the second one with --pair-column. Columns: {', '.join(there)}."
        )
    return found


def _given(settings: "Predict", task: Task) -> Iterator[Row]:
    texts = settings.texts
    if not (settings.pairs if task.pair is None else task.pair):
        yield from (Row(text) for text in texts)
        return
    if len(texts) % 2:
        raise InputError(f"this model reads pairs of texts: give an even number of arguments, not {len(texts)}")
    yield from (Row(first, pair=second) for first, second in zip(texts[::2], texts[1::2]))


def _writer(settings: "Predict", stream: TextIO, task: Task, pair: bool) -> Callable[[Row, Prediction], None]:
    form = form_of(settings.format, settings.out, FORMATS)
    if form not in ("jsonl", *FORMATS):
        raise InputError(f"--format is {form!r}: labels are written as jsonl, tsv or csv")
    names = ["text", *(["pair"] if pair else [])]
    names += ["score"] if task.type == "regression" else ["label", "probability"]
    if settings.probabilities:
        names += [f"probability of {label}" for label in task.labels]
    if form != "jsonl":
        write_cells(stream, names, form)

    def write(row: Row, prediction: Prediction) -> None:
        values = {"text": row.text}
        if pair:
            values["pair"] = row.pair
        if task.type == "regression":
            values["score"] = round(prediction.score, 6)
        else:
            values |= {"label": prediction.label, "probability": round(prediction.probability, 6)}
        if form == "jsonl":
            if settings.probabilities:
                values["probabilities"] = {
                    label: round(value, 6) for label, value in zip(task.labels, prediction.probabilities)
                }
            write_json_line(stream, values)
            return
        cells = list(values.values())
        if settings.probabilities:
            cells += [round(value, 6) for value in prediction.probabilities]
        write_cells(stream, cells, form)

    return write
