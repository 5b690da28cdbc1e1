"""Questions with the context that holds the answer: SQuAD files (1.1 and 2.0), JSON lines, `datasets` names."""

import dataclasses
import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from elision.errors import InputError
from elision.tasks.table import read_lines, read_table


@dataclasses.dataclass(frozen=True, slots=True)
class Answer:
    """A stretch of the context, and the character that it begins at."""

    text: str
    begin: int


@dataclasses.dataclass(frozen=True, slots=True)
class Question:
    """A question, its context, and the answers that people gave: none where there is none, None to be predicted."""

    question: str
    context: str
    answers: tuple[Answer, ...] | None = None
    id: str = ""
    where: str = ""
    """`file:line`, for messages"""


def read_questions(source: str, *, labelled: bool = True, split: str = "train") -> list[Question]:
    """Read a file of questions whole.

    A .json file may be of SQuAD's form (data, paragraphs, qas). Else each row has a question, a context, and answers:
    {"text": [...], "answer_start": [...]} as in `datasets`, a list of {"text": ..., "answer_start": ...}, or texts, whose
    first place in the context is taken. No answers, or is_impossible, says that there is none.

    Raises: InputError with file and line for what is missing, and for an answer that is not in its context.
    """
    path = Path(source).expanduser()
    rows: Iterable[tuple[str, Mapping[str, Any]]]
    if path.is_file() and ".json" in [suffix.lower() for suffix in path.suffixes] and (squad := _squad(path)):
        rows = squad
    else:
        rows = read_table(source, split=split)
    questions = [_question(values, where, labelled) for where, values in rows]
    if not questions:
        raise InputError(f"{source} holds no questions.")
    return questions


def _squad(path: Path) -> list[tuple[str, Mapping[str, Any]]] | None:
    """Return (where, row) for every question of a SQuAD file; None when the file is of another form."""
    with read_lines(path) as lines:
        content = lines.read()
    try:
        values = json.loads(content)
    except ValueError:
        return None
    if not isinstance(values, dict) or not isinstance(values.get("data"), list):
        return None
    try:
        return list(_squad_rows(values["data"], path))
    except (KeyError, TypeError, AttributeError) as error:
        raise InputError(
            f"{path} is not of SQuAD's form (data, paragraphs, context, qas): {error!r} is wrong"
        ) from None


def _squad_rows(articles: list[Any], path: Path) -> Iterator[tuple[str, Mapping[str, Any]]]:
    for article in articles:
        for paragraph in article["paragraphs"]:
            for number, asked in enumerate(paragraph["qas"]):
                where = f"{path}: question {asked.get('id', number)}"
                yield where, {**asked, "context": paragraph["context"]}


def _question(values: Mapping[str, Any], where: str, labelled: bool) -> Question:
    for name in ("question", "context"):
        if not isinstance(values.get(name), str) or not values[name].strip():
            raise InputError(f"{where}: the {name} is missing. There is: {', '.join(values)}.")
    question, context = values["question"].strip(), values["context"]
    answers = None
    if labelled:
        given = values.get("answers", values.get("answer"))
        if given is None and not values.get("is_impossible"):
            raise InputError(f"{where}: the answers are missing. There is: {', '.join(values)}.")
        answers = () if values.get("is_impossible") else tuple(_answers(given, context, where))
    return Question(question, context, answers, str(values.get("id", "")), where)


def _answers(given: Any, context: str, where: str) -> Iterator[Answer]:
    if isinstance(given, Mapping):
        texts, begins = given.get("text", []), given.get("answer_start", [])
        listed = texts if isinstance(texts, list) else [texts]
        places = begins if isinstance(begins, list) else [begins]
        pairs = list(zip(listed, [*places, *[None] * (len(listed) - len(places))]))
    else:
        pairs = [
            (each.get("text"), each.get("answer_start")) if isinstance(each, Mapping) else (each, None)
            for each in (given if isinstance(given, list) else [given])
        ]
    for text, begin in pairs:
        if not isinstance(text, str) or not (begin is None or isinstance(begin, int)):
            raise InputError(f"{where}: {text!r:.60} is no answer: give its text and answer_start")
        if text.strip():
            yield _placed(text, begin, context, where)


def _placed(text: str, begin: int | None, context: str, where: str) -> Answer:
    """Return the answer where it stands in the context: at `begin`, or at its nearest place to it."""
    stripped = text.strip()
    if begin is not None and context.startswith(text, begin):
        return Answer(stripped, begin + text.index(stripped))
    places, at = [], context.find(stripped)
    while at >= 0:
        places.append(at)
        at = context.find(stripped, at + 1)
    if not places:
        raise InputError(f"{where}: the answer {text!r:.60} is not in its context. Correct it, or drop the question.")
    return Answer(stripped, min(places, key=lambda place: abs(place - (begin or 0))))
