"""Fine-tuning to write: pairs of texts and a pretrained model in, a run out that translates, summarises or answers.

result = finetune_writer(Path("runs/t5-tiny"), train_pairs, valid_pairs, Path("runs/en-de"))
result.metrics["bleu"], result.more["beside"]
"""

import dataclasses
import json
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

import elision
from elision.errors import InputError
from elision.generation.decoding import Decoding
from elision.loaded import Loaded
from elision.model.language_model import LanguageModel
from elision.objectives import CausalLM, SequenceLM
from elision.tasks.finetune import Baseline, FineTune, Prepared, Result, finetune, fingerprint
from elision.tasks.pairs_held_out import PairsHeldOut, write_predictions
from elision.tasks.pairs_of_text import PairColumns, TextPair
from elision.tasks.prompt import FOR_DECODERS, FOR_ENCODERS, Prompt
from elision.tasks.seq2seq_scores import check_text_metric
from elision.tasks.task import WritingTask
from elision.tasks.trivial_writers import trivial_writers
from elision.tasks.writing import PairPlan, WritingEncoding
from elision.text.tokenizer import Tokenizer
from elision.train.loop import Progress, Run

PREDICTIONS = "predictions.jsonl"
TEST_PREDICTIONS = "test-predictions.jsonl"

# Targets are classes when there are at most so many different ones, each of which comes often.
MOST_LABELS = 50
LEAST_ROWS_PER_LABEL = 5

AnyPair = TextPair | tuple[str, str]


@dataclasses.dataclass(frozen=True)
class Writing:
    """What is asked for besides how a model is fine-tuned."""

    prompt: str | None = None
    """what the model reads, {source} standing for the source; default: the source alone, or for models without an
    encoder the source and a line of ###"""
    max_target_length: int | None = None
    """tokens that are written, special symbols included; default: as many as the longest training target has, if they find
    room"""
    label_smoothing: float | None = None
    """share of the target's weight that all tokens get alike; default: as in the pretraining, and where there was none 0.2
    with languages (mBART), 0.1 for models that start with the last token (BART), else 0"""
    languages: tuple[str, str] | None = None
    """of sources and targets, in models whose texts end with a symbol for their language (mBART)"""
    decoding: Decoding = Decoding()
    """how the texts are written that are measured at the end, and later (after every epoch without a search);
    num_tokens is --max-target-length"""
    eval_texts: int = 200
    """held-out texts that are written after every epoch; at the end all are"""
    tokenize: str = "auto"
    """how sacrebleu splits words for BLEU: 13a, intl, char, zh, ko-mecab, ja-mecab, none; auto = as the script has it"""

    def __post_init__(self) -> None:
        for name in ("max_target_length", "eval_texts"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise InputError(f"{name} is {value}: it must be at least 1")
        if self.label_smoothing is not None and not 0 <= self.label_smoothing < 1:
            raise InputError(f"label_smoothing is {self.label_smoothing}: give a share from 0 to below 1")


def finetune_writer(
    model: Path | str | Loaded,
    train: Sequence[AnyPair],
    valid: Sequence[AnyPair],
    out: Path,
    settings: FineTune = FineTune(),
    *,
    test: Sequence[AnyPair] = (),
    writing: Writing = Writing(),
    columns: PairColumns = PairColumns(),
    device: torch.device = torch.device("cpu"),
    report: Callable[[Progress], None] = lambda progress: None,
    begin: Callable[[Run, Prepared, int], None] = lambda run, prepared, step: None,
) -> Result:
    """Fine-tune a pretrained model to write, or go on with the run that is already in `out`.

    model: a run, checkpoint or Hugging Face folder of an encoder-decoder or a causal model, or what `elision.load`
    returned. Pairs are `TextPair`s or tuples (source, target). `report` hears of progress, `begin` of the run before it
    starts.

    Raises: InputError for pairs that do not fit, a model that cannot write, or a folder that holds another run.
    """
    prepared = prepare(model, train, valid, settings, test=test, writing=writing, columns=columns)
    return finetune(prepared, out, settings, device, report, begin)


def prepare(
    model: Path | str | Loaded,
    train: Sequence[AnyPair],
    valid: Sequence[AnyPair],
    settings: FineTune,
    *,
    test: Sequence[AnyPair] = (),
    writing: Writing = Writing(),
    columns: PairColumns = PairColumns(),
) -> Prepared:
    """Check the pairs against the model, choose prompt and lengths, tokenise, and measure what trivial writers reach."""
    train, valid, test = ([_pair(pair) for pair in pairs] for pairs in (train, valid, test))
    if not train or not valid:
        raise InputError(f"there are {len(train)} training and {len(valid)} held-out pairs: give at least one of each")
    labels = _labels(train)
    metric = check_text_metric(settings.metric, bool(labels))
    loaded = model if isinstance(model, Loaded) else elision.load(model)
    objective = writing_objective(loaded, writing.label_smoothing, writing.languages is not None)
    if settings.freeze_backbone:
        raise InputError(
            "freeze_backbone would leave nothing to learn: what writes has no head but the backbone's table"
        )
    loaded.read_words(text for pair in (*train, *valid, *test) for text in (pair.source, *pair.targets))
    tokenizer, backbone = loaded.tokenizer, loaded.recipe.backbone
    joined = backbone.answers(tokenizer.vocabulary).joined
    prompt = (FOR_DECODERS if joined else FOR_ENCODERS) if writing.prompt is None else Prompt(writing.prompt)
    # Every reference is something to learn from.
    examples = [(pair.source, target) for pair in train for target in pair.targets]
    encoding = _encoding(loaded, settings, writing, tokenizer, [target for _, target in examples])
    plan = PairPlan(examples, tokenizer, encoding, prompt)
    decoding = dataclasses.replace(writing.decoding, num_tokens=encoding.max_target_length)
    task = WritingTask(
        objective=objective,
        max_length=encoding.max_length,
        max_target_length=encoding.max_target_length,
        metric=metric,
        prompt=prompt.text,
        labels=labels,
        columns=columns,
        decoding=decoding,
        languages=writing.languages,
    )
    held_out = PairsHeldOut(task, valid, tokenizer, encoding, writing.tokenize)
    beside = trivial_writers(examples, valid, labels, writing.tokenize)
    best = max(beside, key=lambda name: beside[name].get(metric, 0.0))
    baseline_metric = metric if metric in beside[best] else "chrf"

    def start(model: LanguageModel) -> None:
        if not settings.from_scratch:
            # A model that writes goes on with the head it was pretrained with.
            name = objective.name
            model.heads[name].load_state_dict(loaded.model.heads[name].state_dict())

    def afterwards(model: LanguageModel, dtype: torch.dtype, folder: Path) -> dict[str, Any]:
        write_predictions(held_out, folder / PREDICTIONS)
        more: dict[str, Any] = {"signatures": list(held_out.signatures), "beside": beside}
        if test:
            tested = PairsHeldOut(task, test, tokenizer, encoding, writing.tokenize, hear=held_out.hear)
            more["test"] = {"num": len(test), "metrics": tested.measure(model, dtype).metrics}
            more["test"]["beside"] = trivial_writers(examples, test, labels, writing.tokenize)
            write_predictions(tested, folder / TEST_PREDICTIONS)
        return more

    return Prepared(
        task=task,
        loaded=loaded,
        train=plan,
        held_out=held_out.part(writing.eval_texts),
        baseline=Baseline(f"{baseline_metric} of {best}", beside[best][baseline_metric]),
        num_rows=len(train),
        num_cut=0,
        fingerprint=fingerprint(
            loaded, *([(pair.source, pair.targets) for pair in pairs] for pairs in (train, valid, test))
        ),
        # As they come back from run.json.
        choices=json.loads(json.dumps(dataclasses.asdict(writing))),
        start=start,
        decoder_row_length=None if joined else max(128, int(plan.target_lengths().max())),
        notes=_notes(plan, task, joined),
        in_full=held_out,
        afterwards=afterwards,
    )


def writing_objective(
    loaded: Loaded, label_smoothing: float | None = None, languages: bool = False
) -> CausalLM | SequenceLM:
    """Return the objective that a pretrained model writes by. Raises: InputError when it cannot write."""
    backbone = loaded.recipe.backbone
    objective = loaded.model.token_objective
    if not isinstance(objective, CausalLM | SequenceLM) or not hasattr(backbone, "answers"):
        names = ", ".join(each.name for each in loaded.model.objectives)
        raise InputError(
            f"{loaded.path} cannot write: it is {backbone.visibility} and was trained with {names}. Take an "
            f"encoder-decoder (BART, T5) or a causal model (GPT-2)"
        )
    if isinstance(objective, CausalLM):
        if label_smoothing:
            raise InputError(
                f"label_smoothing is {label_smoothing}, which a causal language model does not know: leave it out"
            )
        return objective
    if label_smoothing is None:
        # What mBART and BART were fine-tuned with (fairseq's examples); T5 had none.
        usual = 0.2 if languages else 0.1 if getattr(backbone, "start", None) == "last" else 0.0
        label_smoothing = objective.label_smoothing or usual
    return dataclasses.replace(objective, label_smoothing=label_smoothing)


def _encoding(
    loaded: Loaded, settings: FineTune, writing: Writing, tokenizer: Tokenizer, targets: list[str]
) -> WritingEncoding:
    backbone = loaded.recipe.backbone
    joined = backbone.answers(tokenizer.vocabulary).joined
    max_length = settings.max_length or settings.length_for(loaded.recipe)
    if joined and settings.max_length is None and backbone.max_length is not None:
        # Source and target share the room, so all of it is theirs.
        max_length = backbone.max_length
    most = writing.max_target_length
    if most is None:
        # A frame has two symbols at most, and there may be a language.
        longest = max(len(ids) for ids in tokenizer.encode_batch(targets)) + 2 + (writing.languages is not None)
        side = getattr(backbone, "decoder", backbone).max_length
        room = max_length // 2 if joined else (side or max(max_length, longest))
        most = min(longest, room)
    return WritingEncoding.of(backbone, tokenizer.vocabulary, max_length, most, writing.languages)


def _labels(train: Sequence[TextPair]) -> tuple[str, ...]:
    """Return the different targets in the order of their frequency when they are classes, else ()."""
    if any(len(pair.targets) > 1 for pair in train):
        return ()
    counts = Counter(pair.targets[0] for pair in train)
    if not 2 <= len(counts) <= MOST_LABELS or len(train) < LEAST_ROWS_PER_LABEL * len(counts):
        return ()
    return tuple(label for label, _ in counts.most_common())


def _notes(plan: PairPlan, task: WritingTask, joined: bool) -> tuple[str, ...]:
    notes = []
    sources, targets = plan.num_cut
    if sources:
        room = f"{task.max_length} tokens" + (" with their targets" if joined else "")
        notes.append(
            f"{sources:,} training sources ({sources / len(plan):.1%}) are longer than {room} and lose their end "
            f"(--max-length raises it)"
        )
    if targets:
        notes.append(
            f"{targets:,} training targets ({targets / len(plan):.1%}) are longer than {task.max_target_length} tokens: they "
            f"lose their end, and the end of the text is not learned from them (--max-target-length raises it)"
        )
    return tuple(notes)


def _pair(pair: AnyPair) -> TextPair:
    if not isinstance(pair, TextPair):
        pair = TextPair(pair[0], (pair[1],))
    if not pair.targets:
        raise InputError(f"{pair.where or repr(pair.source[:40])}: give the target, or several references")
    return pair
