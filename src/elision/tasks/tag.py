"""Fine-tuning for tagging: texts with a tag for each word and a pretrained model in, a run with a tagger out.

train, unit = read_tagged("train.conll")
result = finetune_tagger(Path("runs/bert-tiny"), train, valid, Path("runs/names"))
result.metrics["f1"], result.baseline.value
"""

import dataclasses
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
import torch.nn.functional as F

import elision
from elision.errors import InputError, nearest
from elision.loaded import Loaded
from elision.model.language_model import LanguageModel
from elision.tasks.encoding import Encoding
from elision.tasks.finetune import Baseline, FineTune, Measured, Prepared, Result, finetune, fingerprint
from elision.tasks.tag_scores import check_tag_metric, measure_tags
from elision.tasks.tagged import TaggedText
from elision.tasks.tagger import TaggedPlan, tag_scores
from elision.tasks.task import TaggingTask
from elision.train.loop import Progress, Run


def finetune_tagger(
    model: Path | str | Loaded,
    train: Sequence[TaggedText],
    valid: Sequence[TaggedText],
    out: Path,
    settings: FineTune = FineTune(),
    *,
    unit: str = "words",
    device: torch.device = torch.device("cpu"),
    report: Callable[[Progress], None] = lambda progress: None,
    begin: Callable[[Run, Prepared, int], None] = lambda run, prepared, step: None,
) -> Result:
    """Fine-tune a pretrained model on tagged texts, or go on with the run that is already in `out`.

    model: a run, checkpoint or Hugging Face folder, or what `elision.load` returned. unit: "characters" when every
    character has a tag. `report` hears of progress, `begin` of the run before it starts.

    Raises: InputError for tags that do not fit, or a folder that holds another run.
    """
    return finetune(prepare(model, train, valid, settings, unit), out, settings, device, report, begin)


def prepare(
    model: Path | str | Loaded,
    train: Sequence[TaggedText],
    valid: Sequence[TaggedText],
    settings: FineTune,
    unit: str = "words",
) -> Prepared:
    """Check the tags of the held-out texts against those of the training texts, tokenise."""
    if not train or not valid:
        raise InputError(f"there are {len(train)} training and {len(valid)} held-out texts: give at least one of each")
    for text in (*train, *valid):
        if text.tags is None or len(text.tags) != len(text.words):
            raise InputError(f"{text.where or repr(text.text[:40])}: give every word a tag")
    labels = _labels(train, valid)
    loaded = model if isinstance(model, Loaded) else elision.load(model)
    loaded.read_words(text.text for text in (*train, *valid))
    max_length = settings.length_for(loaded.recipe)
    encoding = Encoding.of(loaded.recipe.backbone, loaded.tokenizer.vocabulary, max_length)
    plan = TaggedPlan(train, loaded.tokenizer, encoding, labels)
    task = TaggingTask(labels, max_length, check_tag_metric(settings.metric, labels), unit)
    if not plan.num_places:
        raise InputError("no word of the training texts has a token: are they empty?")
    held_out = TaggedHeldOut(task, valid, TaggedPlan(valid, loaded.tokenizer, encoding, labels))
    return Prepared(
        task=task,
        loaded=loaded,
        train=plan,
        held_out=held_out,
        baseline=_baseline(train, valid, task),
        num_rows=len(train),
        num_cut=plan.num_cut,
        fingerprint=fingerprint(loaded, *([(t.text, t.words, t.tags) for t in texts] for texts in (train, valid))),
        decoder_row_length=encoding.decoder_row_length(plan.lengths()),
    )


@dataclasses.dataclass(frozen=True, eq=False)
class TaggedHeldOut:
    """Held-out texts with their tags."""

    task: TaggingTask
    texts: Sequence[TaggedText]
    plan: TaggedPlan

    def __len__(self) -> int:
        return len(self.texts)

    def measure(self, model: LanguageModel, dtype: torch.dtype) -> Measured:
        """Return the loss over the places, the measures over all words, and a line for each type of entity."""
        scores_NC = tag_scores(model, self.plan, dtype)
        loss = float(F.cross_entropy(scores_NC, torch.from_numpy(self.plan.targets())))
        predicted = self.plan.tags(scores_NC.argmax(-1).numpy(), self.task.labels)
        values, lines = measure_tags([text.tags for text in self.texts], predicted, self.task.labels)
        return Measured({"loss": loss, **values}, lines)


def _labels(train: Sequence[TaggedText], valid: Sequence[TaggedText]) -> tuple[str, ...]:
    """Return all tags in order: "O" first, then by type, B before I."""
    seen = {tag for text in train for tag in text.tags}
    if len(seen) < 2:
        raise InputError(f"all words are tagged {next(iter(seen), None)!r}: tagging needs at least 2 tags")
    for text in valid:
        for tag in text.tags:
            # A rare beginning or going-on of a type that training knows is no mistake: it cannot be learned, only missed.
            if tag not in seen and (tag[:2] not in ("B-", "I-") or not {f"B-{tag[2:]}", f"I-{tag[2:]}"} & seen):
                known = ", ".join(sorted(seen)[:10]) + (", ..." if len(seen) > 10 else "")
                raise InputError(
                    f"{text.where or repr(text.text[:40])}: the tag {tag!r} is none of the training data's ({known})."
                    f"{nearest(tag, sorted(seen))}"
                )
    seen |= {tag for text in valid for tag in text.tags}
    return tuple(sorted(seen, key=lambda tag: (tag != "O", tag.partition("-")[2], tag)))


def _baseline(train: Sequence[TaggedText], valid: Sequence[TaggedText], task: TaggingTask) -> Baseline:
    """Give every word the tag that it has most often in training, and unknown ones the commonest of all."""
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    overall: Counter[str] = Counter()
    for text in train:
        overall.update(text.tags)
        for word, tag in zip(text.tokens, text.tags):
            counts[word][tag] += 1
    usual = overall.most_common(1)[0][0]
    predicted = [
        [counts[word].most_common(1)[0][0] if word in counts else usual for word in text.tokens] for text in valid
    ]
    values, _ = measure_tags([text.tags for text in valid], predicted, task.labels)
    what = "character" if task.unit == "characters" else "word"
    return Baseline(f"{task.metric.replace('_', ' ')} of each {what}'s commonest tag", values[task.metric])
