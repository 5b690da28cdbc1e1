"""`elision finetune tag`: a tag for every word."""

import dataclasses

import tyro

from elision.cli.finetuning.course import Course, follow
from elision.progress import console, task
from elision.tasks.split import hold_out
from elision.tasks.tag import prepare
from elision.tasks.tagged import read_tagged


@dataclasses.dataclass(frozen=True)
class Tag(Course):
    """Fine-tune a pretrained model to tag the words of a text: names of people and places, parts of speech ...

    Reads files with a word and its tag on a line and a blank line after each text (CoNLL; also .gz .zst .xz .bz2), JSON
    lines and parquet with lists of tokens and tags, texts with marked spans ({"text": ..., "entities": [{"start": 0,
    "end": 5, "label": "PER"}]}), and `datasets` names. Tags of entities (B-PER, I-PER, O) are measured by whole entities
    (seqeval), others word by word. Characters that are tagged one by one keep the spaces among them.

    For example:

    elision finetune tag --model runs/bert-mini --data train.conll --valid dev.conll --out runs/names

    elision finetune tag --model runs/bert-mini --data klue-ner.tsv --hold-out 0.2 --out runs/names-ko --epochs 5

    elision finetune tag --model runs/bert-mini --data en.conllu --token-column 1 --tag-column 3 --out runs/pos
    """

    token_column: int = 0
    """column of the word in files of columns, from 0"""
    tag_column: int = -1
    """column of the tag, from 0, or -1 for the last"""


def main(arguments: list[str]) -> int:
    """Run the command."""
    course = tyro.cli(Tag, prog="elision finetune tag", args=arguments, config=(tyro.conf.FlagCreatePairsOff,))
    columns = {"token_column": course.token_column, "tag_column": course.tag_column}
    with task("reading", unit="texts") as bar:
        train, unit = read_tagged(course.data, **columns)
        if course.valid is not None:
            valid, _ = read_tagged(course.valid, **columns, dataset_split="validation")
        else:
            train, valid = hold_out(train, course.hold_out)
        bar.advance(len(train) + len(valid))
    for source, texts in ((course.data, train), (course.valid or "held out of it", valid)):
        console.print(f"[dim]{source}: {len(texts):,} texts, {sum(len(t.words) for t in texts):,} {unit}[/]")
    return follow(course, lambda settings: prepare(course.model, train, valid, settings, unit))
