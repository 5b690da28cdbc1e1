"""Fine-tuning for extractive question answering: questions, contexts and a pretrained model in, a run out.

result = finetune_answerer(Path("runs/bert-tiny"), read_questions("train.json"), read_questions("dev.json"), Path("runs/qa"))
result.metrics["f1"], result.baseline.value
"""

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path

import torch

import elision
from elision.errors import InputError
from elision.loaded import Loaded
from elision.model.language_model import LanguageModel
from elision.tasks.answer_scores import check_answer_metric, measure_answers, normalised
from elision.tasks.answerer import QuestionPlan, find_answers
from elision.tasks.encoding import Encoding
from elision.tasks.finetune import Baseline, FineTune, Measured, Prepared, Result, finetune, fingerprint
from elision.tasks.questions import Question
from elision.tasks.task import AnsweringTask, Windows
from elision.text.sentences import split_sentences
from elision.train.loop import Progress, Run

# What BERT read at a time; a longer window costs more and finds little.
USUAL_LENGTH = 384


def finetune_answerer(
    model: Path | str | Loaded,
    train: Sequence[Question],
    valid: Sequence[Question],
    out: Path,
    settings: FineTune = FineTune(),
    *,
    windows: Windows = Windows(),
    device: torch.device = torch.device("cpu"),
    report: Callable[[Progress], None] = lambda progress: None,
    begin: Callable[[Run, Prepared, int], None] = lambda run, prepared, step: None,
) -> Result:
    """Fine-tune a pretrained model to find answers, or go on with the run that is already in `out`.

    model: a run, checkpoint or Hugging Face folder, or what `elision.load` returned. `report` hears of progress, `begin`
    of the run before it starts.

    Raises: InputError for questions that do not fit, or a folder that holds another run.
    """
    return finetune(prepare(model, train, valid, settings, windows), out, settings, device, report, begin)


def prepare(
    model: Path | str | Loaded,
    train: Sequence[Question],
    valid: Sequence[Question],
    settings: FineTune,
    windows: Windows = Windows(),
) -> Prepared:
    """Check the questions, tokenise them and cut their contexts into windows."""
    if not train or not valid:
        raise InputError(
            f"there are {len(train)} training and {len(valid)} held-out questions: give at least one of each"
        )
    for row in (*train, *valid):
        if row.answers is None:
            raise InputError(f"{row.where or repr(row.question[:40])}: give the answers, or an empty tuple for none")
    if not any(row.answers for row in train):
        raise InputError("no training question has an answer: there is nothing to learn")
    loaded = model if isinstance(model, Loaded) else elision.load(model)
    loaded.read_words(text for row in (*train, *valid) for text in (row.question, row.context))
    max_length = settings.max_length or min(USUAL_LENGTH, settings.length_for(loaded.recipe))
    encoding = Encoding.of(loaded.recipe.backbone, loaded.tokenizer.vocabulary, max_length)
    task = AnsweringTask(
        max_length=max_length,
        metric=check_answer_metric(settings.metric),
        unanswerable=any(not row.answers for row in train),
        windows=windows,
    )
    plan, held_out = (QuestionPlan(rows, loaded.tokenizer, encoding, windows) for rows in (train, valid))
    tables = ([(row.question, row.context, row.answers) for row in rows] for rows in (train, valid))
    return Prepared(
        task=task,
        loaded=loaded,
        train=plan,
        held_out=QuestionsHeldOut(task, valid, held_out),
        baseline=_baseline(valid, task),
        num_rows=len(train),
        num_cut=plan.num_cut,
        fingerprint=fingerprint(loaded, *tables),
        choices=dataclasses.asdict(windows),
        decoder_row_length=encoding.decoder_row_length(plan.lengths()),
    )


@dataclasses.dataclass(frozen=True, eq=False)
class QuestionsHeldOut:
    """Held-out questions with their true answers."""

    task: AnsweringTask
    questions: Sequence[Question]
    plan: QuestionPlan

    def __len__(self) -> int:
        return len(self.questions)

    def measure(self, model: LanguageModel, dtype: torch.dtype) -> Measured:
        """Return the loss over the windows and SQuAD's measures over the questions."""
        answers, loss = find_answers(model, self.plan, self.questions, self.task, dtype)
        return Measured({"loss": loss, **_measures(self.questions, [found[0].text for found in answers])}, [])


def _measures(questions: Sequence[Question], predicted: Sequence[str]) -> dict[str, float]:
    return measure_answers([[answer.text for answer in row.answers or ()] for row in questions], predicted)


def _baseline(questions: Sequence[Question], task: AnsweringTask) -> Baseline:
    """Answer with the sentence that shares most words with the question; or never, where that is better."""
    sentences = {context: split_sentences(context) for context in {row.context for row in questions}}
    closest = []
    for row in questions:
        asked = set(normalised(row.question).split())
        among = sentences[row.context]
        closest.append(max(among, key=lambda sentence: len(asked & set(normalised(sentence).split())), default=""))
    name = task.metric.replace("_", " ")
    found = [Baseline(f"{name} of the sentence most like the question", _measures(questions, closest)[task.metric])]
    if task.unanswerable:
        never = _measures(questions, [""] * len(questions))[task.metric]
        found.append(Baseline(f"{name} of saying that there is no answer", never))
    return max(found, key=lambda baseline: baseline.value)
