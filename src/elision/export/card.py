"""The model card: what the model is, what it was trained on and how, what it reached, how to load it."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import elision
from elision.loaded import Loaded
from elision.plain import to_plain
from elision.tasks.task import AnyTask, WritingTask
from elision.train.metrics import read_metrics


@dataclasses.dataclass(frozen=True)
class Facts:
    """What the run of a checkpoint tells of it; empty where there is no run (an import)."""

    command: str | None = None
    store: dict[str, Any] = dataclasses.field(default_factory=dict)
    step: int | None = None
    tokens: int | None = None
    seconds: float | None = None
    metrics: dict[str, float] = dataclasses.field(default_factory=dict)
    init_from: str | None = None


def gather(checkpoint: Path) -> Facts:
    """Read what is known of a checkpoint from its own state and from the run that it lies in."""
    state = _json(checkpoint / "state.json")
    run = checkpoint.parent.parent if checkpoint.parent.name == "checkpoints" else checkpoint
    about = _json(run / "run.json")
    step = state.get("step")
    measured = [line for line in read_metrics(run) if line.get("split") == "validation" and line.get("step") == step]
    metrics = {name: value for name, value in measured[-1].items() if name not in ("step", "split")} if measured else {}
    return Facts(
        command=about.get("command"),
        store={name: value for name, value in about.get("store", {}).items() if name != "path"},
        step=step,
        tokens=state.get("tokens"),
        seconds=state.get("seconds"),
        metrics=metrics,
        init_from=about.get("init_from"),
    )


def write(loaded: Loaded, config: dict[str, Any], facts: Facts, name: str, num_parameters: int) -> str:
    """Return the text of README.md for a model of `num_parameters` numbers; `name` is its folder."""
    architecture = config["architectures"][0]
    task, auto = next(value for ending, value in _TASKS.items() if architecture.endswith(ending))
    header = ["---", "library_name: transformers", f"pipeline_tag: {task}", "tags:", "- elision"]
    header += [f"- {config['model_type']}", "---"]
    languages = loaded.recipe.languages
    language = (loaded.recipe.default_language or languages[0]) if languages else None
    parts = [
        "\n".join(header),
        f"# {name}",
        f"A `{architecture}` of {num_parameters:,} parameters, {_made(loaded, facts)} by elision "
        f"{elision.__version__}.",
        f"## Use\n\n```python\n{_use(architecture, auto, name, language)}\n```",
        f"## Recipe\n\n{_table(('part', 'what'), _recipe_rows(loaded))}",
    ]
    data = _data_rows(facts)
    if data:
        parts.append(f"## Training data\n\n{_table(('what', ''), data)}")
    if facts.metrics:
        rows = [(key.replace("_", " "), f"{value:.4f}") for key, value in facts.metrics.items()]
        parts.append(f"## Held-out text\n\n{_table(('measure', f'at step {facts.step:,}'), rows)}")
    if facts.command:
        parts.append(f"## Command\n\n```\n{facts.command}\n```")
    return "\n\n".join(parts) + "\n"


def write_index(classes: dict[str, str], name: str) -> str:
    """Return the text of README.md over several folders, given the class of each."""
    rows = [(f"[`{folder}`]({folder})", f"`{architecture}`") for folder, architecture in classes.items()]
    lines = ["import elision", "", f'model = elision.load("{name}")  # all of it, as it was trained']
    return (
        "\n\n".join(
            [
                f"# {name}",
                f"What one pretraining run by elision {elision.__version__} left; `transformers` loads each folder by itself.",
                _table(("folder", "class"), rows),
                "```python\n" + "\n".join(lines) + "\n```",
            ]
        )
        + "\n"
    )


# By how the name of a class ends, the particular before the general: what the hub calls the task, and which class loads it.
_TASKS = {
    "ElectraForPreTraining": ("feature-extraction", "AutoModelForPreTraining"),
    "ForPreTraining": ("fill-mask", "AutoModelForMaskedLM"),
    "ForMaskedLM": ("fill-mask", "AutoModelForMaskedLM"),
    "WithLMHeadModel": ("fill-mask", "AutoModelForMaskedLM"),
    "LMHeadModel": ("text-generation", "AutoModelForCausalLM"),
    "ForCausalLM": ("text-generation", "AutoModelForCausalLM"),
    "ForConditionalGeneration": ("text2text-generation", "AutoModelForSeq2SeqLM"),
    "ForNextSentencePrediction": ("feature-extraction", "AutoModelForNextSentencePrediction"),
    "ForSequenceClassification": ("text-classification", "AutoModelForSequenceClassification"),
    "ForTokenClassification": ("token-classification", "AutoModelForTokenClassification"),
    "ForQuestionAnswering": ("question-answering", "AutoModelForQuestionAnswering"),
    "ForQuestionAnsweringSimple": ("question-answering", "AutoModelForQuestionAnswering"),
    "Model": ("feature-extraction", "AutoModel"),
}


def _use(architecture: str, auto: str, name: str, language: str | None) -> str:
    lines = [
        f"from transformers import {auto}, AutoTokenizer",
        "",
        f'model = {auto}.from_pretrained("{name}")',
        f'tokenizer = AutoTokenizer.from_pretrained("{name}")',
    ]
    if architecture == "BertForPreTraining":
        lines += ["# AutoModelForPreTraining loads the head over sentence pairs as well."]
    if language is not None:
        lines += [
            "# It was told the language of every token. Pass it on:",
            f'# langs=torch.full_like(input_ids, model.config.lang2id["{language}"])',
        ]
    if not architecture.endswith("SequenceClassification"):
        lines += ["", "import elision", "", f'model = elision.load("{name}")']
    return "\n".join(lines)


_READ = {
    "classify": "labelling texts",
    "tag": "tagging the words of texts",
    "answer": "finding answers to questions in texts",
    "seq2seq": "writing texts of others",
}


def _labels(task: AnyTask) -> str:
    if isinstance(task, WritingTask):
        return f"reads `{task.prompt!r}`, {{source}} being the text, and writes up to {task.max_target_length} tokens"
    if task.learns == "answer":
        return "begin and end of an answer" + (", or none" if task.unanswerable else "")
    pairs = " of pairs of texts" if getattr(task, "pair", False) else ""
    return f"{task.type}{pairs}: {', '.join(task.labels) or 'a score'}"


def _made(loaded: Loaded, facts: Facts) -> str:
    if loaded.task is not None:
        what = f"fine-tuned for {_READ[loaded.task.learns]}"
        return f"{what} (`{loaded.recipe.name}`)"
    if facts.step is None:
        return f"converted (from `{loaded.recipe.name}`)"
    return f"pretrained with the recipe `{loaded.recipe.name}`"


def _recipe_rows(loaded: Loaded) -> list[tuple[str, str]]:
    recipe = loaded.recipe
    tokenizer = f"{type(loaded.tokenizer.raw.model).__name__}, {loaded.tokenizer.vocabulary.size:,} symbols"
    rows = [("tokenizer", tokenizer), ("segmenter", _settings(recipe.segmenter)), ("noise", _settings(recipe.noise))]
    rows += [(f"in turn: {turn.name}", _settings(turn)) for turn in recipe.turns]
    rows += [("languages", ", ".join(recipe.languages))] if recipe.languages else []
    rows += [("backbone", _settings(recipe.backbone))]
    if loaded.task is not None:
        rows = [rows[0], rows[-1], ("task", _labels(loaded.task))]
    rows += [("objective", _settings(objective)) for objective in loaded.model.objectives]
    train = recipe.train
    growing = "" if train.ramp is None else f"{train.ramp.initial_size:,} to "
    rows += [("batch", f"{growing}{train.batch_size:,} examples"), ("steps", f"{train.steps:,}")]
    return [*rows, ("optimiser", _settings(train.optimizer)), ("schedule", _settings(train.schedule))]


def _data_rows(facts: Facts) -> list[tuple[str, str]]:
    rows = [(key, f"{value:,}" if isinstance(value, int) else f"`{value}`") for key, value in facts.store.items()]
    if facts.tokens:
        rows.append(("tokens read in training", f"{facts.tokens:,}"))
    if facts.init_from:
        rows.append(("started from", f"`{facts.init_from}`"))
    return rows


def _settings(part: Any) -> str:
    """Write a part of the recipe as `Name(field=value, ...)`."""
    return f"`{_plain(to_plain(part))}`"


def _plain(value: Any) -> str:
    if isinstance(value, dict):
        fields = ", ".join(f"{name}={_plain(item)}" for name, item in value.items() if name != "type")
        return f"{value['type']}({fields})"
    return f"{value:g}" if isinstance(value, float) else str(value)


def _table(header: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    lines = [header, ("---",) * len(header), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)


def _json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}
