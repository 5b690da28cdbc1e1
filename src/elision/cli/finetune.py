"""`elision finetune classify`: adapt a pretrained model to labelled texts."""

import dataclasses
import statistics
from pathlib import Path
from typing import Annotated

import tyro

from elision.errors import InputError, nearest
from elision.progress import console, duration, quantity, task
from elision.tasks.classify import FineTune, Prepared, Result, finetune_classifier
from elision.tasks.labelled import Row, read_rows
from elision.tasks.table import Columns
from elision.train.loop import Interrupted, NonFiniteLoss, Progress, Run
from elision.train.precision import choose_device

KINDS = {"classify": "classes or scores for single texts and for pairs of texts"}


@dataclasses.dataclass(frozen=True)
class Classify:
    """Fine-tune a pretrained model to label texts, or pairs of texts, with classes or scores.

    Reads csv, tsv, JSON lines and parquet (also .gz .zst .xz .bz2) and `datasets` names (NAME[:CONFIGURATION][@SPLIT]).
    Columns are found by their usual names (text, sentence, sentence1 + sentence2, label, score ...) or named by options.
    The best epoch is kept. Start the same command again after an interruption, and it goes on where it was.

    For example:

    elision finetune classify --model runs/bert-mini --data train.tsv --valid dev.tsv --out runs/sentiment

    elision finetune classify --model runs/bert-mini --data train.tsv --valid dev.tsv --out runs/scratch --from-scratch

    elision finetune classify --model runs/bert-mini --data sts.csv --valid dev.csv --no-header --text-column 5
    --pair-column 6 --label-column 4 --out runs/sts --seeds 3
    """

    model: Annotated[Path, tyro.conf.arg(metavar="PATH")]
    """run, checkpoint or Hugging Face folder to start from"""
    data: Annotated[str, tyro.conf.arg(metavar="TABLE")]
    """labelled rows to learn from"""
    valid: Annotated[str, tyro.conf.arg(metavar="TABLE")]
    """labelled rows, held out, that measure it and pick the best epoch"""
    out: Annotated[Path, tyro.conf.arg(metavar="RUN")]
    """folder of the run"""
    settings: Annotated[FineTune, tyro.conf.arg(name="")] = FineTune()
    text_column: str | None = None
    """column of the text, or of the first of a pair: its name, or its number from 0"""
    pair_column: str | None = None
    """column of the second text of a pair"""
    label_column: str | None = None
    """column of the class or score"""
    no_header: bool = False
    """csv and tsv files have no line of column names; columns are numbered from 0"""
    seeds: int = 1
    """repeat with so many seeds (in RUN/seed-1, RUN/seed-2 ...) and print mean and standard deviation"""
    device: str = "auto"
    """auto, cpu, cuda or cuda:N"""

    def __post_init__(self) -> None:
        if self.seeds < 1:
            raise InputError(f"--seeds is {self.seeds}: it must be at least 1")


def main(arguments: list[str]) -> int:
    """Run the command."""
    arguments = list(arguments)
    kind = arguments.pop(0) if arguments and not arguments[0].startswith("-") else None
    if kind is None and not any(flag in arguments for flag in ("-h", "--help")):
        raise InputError(
            "say what to learn: elision finetune classify --model PATH --data TABLE --valid TABLE --out RUN"
        )
    if kind is not None and kind not in KINDS:
        raise InputError(f"there is no fine-tuning {kind!r}.{nearest(kind, KINDS)} There is: {', '.join(KINDS)}")
    settings = tyro.cli(
        Classify, prog="elision finetune classify", args=arguments, config=(tyro.conf.FlagCreatePairsOff,)
    )
    columns = Columns(settings.text_column, settings.pair_column, settings.label_column, not settings.no_header)
    with task("reading", unit="rows") as bar:
        train, found = read_rows(settings.data, columns)
        bar.advance(len(train))
        valid, valid_found = read_rows(settings.valid, columns, split="validation")
        bar.advance(len(valid))
    _introduce(settings, train, valid, found, valid_found)
    results = []
    try:
        for seed in range(settings.settings.seed, settings.settings.seed + settings.seeds):
            folder = settings.out if settings.seeds == 1 else settings.out / f"seed-{seed}"
            results.append(_one(settings, train, valid, found, folder, seed))
    except Interrupted as interruption:
        console.print(f"[yellow]{interruption}[/]")
        return 128 + interruption.signal_number
    except NonFiniteLoss as failure:
        console.print(f"[red]elision finetune: {failure}[/]")
        return 1
    if len(results) > 1:
        _mean(settings.out, results)
    else:
        _table(results[0], len(valid))
    console.print("[dim]next:[/]")
    console.print(f"  elision predict --model {results[0].folder} --data TABLE", markup=False, soft_wrap=True)
    console.print(f"  elision export {results[0].folder} {settings.out.name}-hf", markup=False, soft_wrap=True)
    return 0


def _one(settings: Classify, train: list[Row], valid: list[Row], columns: Columns, folder: Path, seed: int) -> Result:
    view = View()
    with task(f"{folder.name}", total=1, unit="steps") as view.bar:
        return finetune_classifier(
            settings.model,
            train,
            valid,
            folder,
            dataclasses.replace(settings.settings, seed=seed),
            columns=columns,
            device=choose_device(settings.device),
            report=view.report,
            begin=view.begin,
        )


class View:
    """What the terminal shows of a run: the bar with the latest numbers, and a line for each evaluation."""

    def __init__(self) -> None:
        self.bar, self.done, self.metric = None, 0, "accuracy"

    def begin(self, run: Run, prepared: Prepared, step: int) -> None:
        """Say what was decided."""
        what = prepared.task
        shown = f"{len(what.labels)} classes ({', '.join(what.labels[:6])}{', ...' if len(what.labels) > 6 else ''})"
        console.print(
            f"[bold]{run.folder}[/]: {what.type}"
            + (f" of {shown}" if what.labels else "")
            + f", {quantity(run.model.num_parameters())} parameters, {run.train.steps} steps of "
            f"{run.train.batch_size} rows, learning rate {run.train.optimizer.learning_rate:.2g}, on {run.device}"
        )
        if prepared.num_cut:
            share = prepared.num_cut / len(prepared.train)
            console.print(
                f"[yellow]{prepared.num_cut:,} training rows ({share:.1%}) are longer than {what.max_length} tokens and "
                f"are cut (--max-length raises it)[/]"
            )
        if step:
            console.print(f"[yellow]going on from step {step}[/]")
        self.metric, self.done = what.metric, step
        self.bar.grow(run.train.steps)
        self.bar.advance(step)

    def report(self, progress: Progress) -> None:
        """Show one report of the loop."""
        values = progress.values
        if progress.split == "train":
            self.bar.note(f"loss {values['loss']:.3f}  [dim]{quantity(values['tokens_per_second'])} tokens/s[/]")
            self.bar.advance(progress.step - self.done)
            self.done = progress.step
        elif progress.split == "validation":
            shown = "  ".join(f"{name.replace('_', ' ')} {value:.4f}" for name, value in values.items())
            console.print(f"step {progress.step:>6}  held out:  {shown}")


def _introduce(settings: Classify, train: list[Row], valid: list[Row], found: Columns, valid_found: Columns) -> None:
    for source, rows, columns in ((settings.data, train, found), (settings.valid, valid, valid_found)):
        texts = f"text {columns.text!r}" + (f", pair {columns.pair!r}" if columns.pair else "")
        console.print(f"[dim]{source}: {len(rows):,} rows; {texts}, label {columns.label!r}[/]", soft_wrap=True)


def _table(result: Result, num_valid: int) -> None:
    from rich.table import Table

    if result.by_class:
        table = Table(
            title=f"held out, by class (step {result.best_step})", title_justify="left", box=None, padding=(0, 2)
        )
        table.add_column("class")
        for name in ("precision", "recall", "F1", "rows"):
            table.add_column(name, justify="right")
        for line in result.by_class[:50]:
            numbers = (f"{value:.3f}" for value in (line.precision, line.recall, line.f1))
            table.add_row(line.label, *numbers, f"{line.num_rows:,}")
        console.print(table)
    table = Table(
        title=f"held out, {num_valid:,} rows", title_justify="left", show_header=False, box=None, padding=(0, 2)
    )
    for name, value in result.metrics.items():
        mark = "  [dim](picks the best checkpoint)[/]" if name == result.task.metric else ""
        table.add_row(name.replace("_", " "), f"{value:.4f}{mark}")
    if result.task.type == "regression":
        table.add_row("[dim]mean squared error of the mean score[/]", f"[dim]{result.majority:.4f}[/]")
    else:
        table.add_row("[dim]accuracy of the commonest class[/]", f"[dim]{result.majority:.4f}[/]")
    table.add_row("time", duration(result.seconds))
    console.print(table)


def _mean(folder: Path, results: list[Result]) -> None:
    from rich.table import Table

    from elision.atomic import write_json

    table = Table(title=f"{folder}, held out", title_justify="left", box=None, padding=(0, 2))
    table.add_column("measure")
    for result in results:
        table.add_column(result.folder.name, justify="right")
    table.add_column("mean ± std", justify="right")
    summary = {}
    for name in results[0].metrics:
        values = [result.metrics[name] for result in results]
        mean, deviation = statistics.mean(values), statistics.stdev(values)
        summary[name] = {"mean": mean, "std": deviation, "values": values}
        table.add_row(name.replace("_", " "), *(f"{value:.4f}" for value in values), f"{mean:.4f} ± {deviation:.4f}")
    console.print(table)
    what = (
        "mean squared error of the mean score"
        if results[0].task.type == "regression"
        else "accuracy of the commonest class"
    )
    console.print(f"  [dim]{what}: {results[0].majority:.4f}[/]")
    write_json(folder / "seeds.json", {"metrics": summary, "majority": results[0].majority})
