"""Tags of words, and the entities that they mark."""

from collections.abc import Iterable
from typing import TYPE_CHECKING, TextIO

from elision.cli.predicting.lines import form_of, write_json_line
from elision.errors import InputError
from elision.loaded import Loaded
from elision.progress import Task as Bar
from elision.tasks.tagged import TaggedText, read_plain
from elision.tasks.tagger import Tagger

if TYPE_CHECKING:
    from elision.cli.predict import Predict

FORMATS = ("conll", "tsv", "bio", "txt")


def predict(settings: "Predict", loaded: Loaded, stream: TextIO, bar: Bar) -> None:
    """Write the tags of every text: as JSON lines with its entities, or a word and its tag on a line."""
    tagger = Tagger(loaded.model, loaded.tokenizer, loaded.task)
    texts: Iterable[str | TaggedText] = settings.texts
    if not settings.texts:
        texts = read_plain(settings.data, tagger.task.unit, settings.token_column)
    form = form_of(settings.format, settings.out, FORMATS)
    if form not in ("jsonl", *FORMATS):
        raise InputError(f"--format is {form!r}: tags are written as jsonl or conll")
    for found in tagger.predict(texts, settings.precision):
        if form == "jsonl":
            values = {"text": found.text, "tokens": found.tokens, "tags": found.tags}
            if settings.probabilities:
                values["probabilities"] = [round(value, 6) for value in found.probabilities]
            values["entities"] = [
                {
                    "text": each.text,
                    "label": each.type,
                    "start": each.begin,
                    "end": each.end,
                    "probability": round(each.probability, 6),
                }
                for each in found.entities
            ]
            write_json_line(stream, values)
        else:
            stream.write("".join(f"{token}\t{tag}\n" for token, tag in zip(found.tokens, found.tags)) + "\n")
        bar.advance()
