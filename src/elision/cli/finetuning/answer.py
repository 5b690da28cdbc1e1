"""`elision finetune answer`: the stretch of a context that answers a question."""

import dataclasses
from typing import Annotated

import tyro

from elision.cli.finetuning.course import Course, follow
from elision.progress import console, task
from elision.tasks.answer import prepare
from elision.tasks.questions import read_questions
from elision.tasks.split import hold_out
from elision.tasks.task import Windows


@dataclasses.dataclass(frozen=True)
class Answer(Course):
    """Fine-tune a pretrained model to find the answer to a question in a context.

    Reads SQuAD files (1.1, or 2.0 where some questions have no answer; KorQuAD and others of that form), JSON lines with
    question, context and answers, and `datasets` names. A context that is too long is read in overlapping windows.
    Measured by exact match and F1 over words, and over characters for languages whose words carry endings
    (--metric character_f1). Without --valid, a share of the contexts is held out with all their questions.

    For example:

    elision finetune answer --model runs/bert-mini --data train-v2.0.json --valid dev-v2.0.json --out runs/squad

    elision finetune answer --model runs/bert-ko --data KorQuAD_v1.0_train.json --out runs/korquad --metric character_f1

    elision predict --model runs/squad "Who wrote it?" "The book was written by Jane Austen in 1813."
    """

    windows: Annotated[Windows, tyro.conf.arg(name="")] = Windows()


def main(arguments: list[str]) -> int:
    """Run the command."""
    course = tyro.cli(Answer, prog="elision finetune answer", args=arguments, config=(tyro.conf.FlagCreatePairsOff,))
    with task("reading", unit="questions") as bar:
        train = read_questions(course.data)
        if course.valid is not None:
            valid = read_questions(course.valid, split="validation")
        else:
            train, valid = hold_out(train, course.hold_out, lambda row: row.context)
        bar.advance(len(train) + len(valid))
    for source, rows in ((course.data, train), (course.valid or "held out of it", valid)):
        without = sum(not row.answers for row in rows)
        contexts = len({row.context for row in rows})
        said = f", {without:,} without an answer" if without else ""
        console.print(f"[dim]{source}: {len(rows):,} questions about {contexts:,} contexts{said}[/]")
    return follow(course, lambda settings: prepare(course.model, train, valid, settings, course.windows))
