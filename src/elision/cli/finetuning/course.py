"""What all kinds of fine-tuning have in common on the command line: options, what is shown meanwhile, tables at the end."""

import dataclasses
import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import tyro

from elision.atomic import write_json
from elision.errors import InputError
from elision.progress import console, duration, quantity, task
from elision.tasks.finetune import FineTune, HeldOut, Prepared, Result, finetune
from elision.train.loop import Interrupted, NonFiniteLoss, Progress, Run
from elision.train.precision import choose_device


@dataclasses.dataclass(frozen=True)
class Course:
    """The options of every kind of fine-tuning."""

    model: Annotated[Path, tyro.conf.arg(metavar="PATH")]
    """run, checkpoint or Hugging Face folder to start from"""
    data: Annotated[str, tyro.conf.arg(metavar="TABLE")]
    """labelled rows to learn from"""
    out: Annotated[Path, tyro.conf.arg(metavar="RUN")]
    """folder of the run"""
    valid: Annotated[str | None, tyro.conf.arg(metavar="TABLE")] = None
    """labelled rows, held out, that measure it and pick the best epoch; default: a part of --data"""
    hold_out: float = 0.1
    """the share of --data that is held out when there is no --valid"""
    settings: Annotated[FineTune, tyro.conf.arg(name="")] = FineTune()
    seeds: int = 1
    """repeat with so many seeds (in RUN/seed-1, RUN/seed-2 ...) and print mean and standard deviation"""
    device: str = "auto"
    """auto, cpu, cuda or cuda:N"""

    def __post_init__(self) -> None:
        if self.seeds < 1:
            raise InputError(f"--seeds is {self.seeds}: it must be at least 1")


def follow(
    course: Course,
    prepare: Callable[[FineTune], Prepared],
    view: "Callable[[], View] | None" = None,
    show: Callable[[Result, int], None] | None = None,
) -> int:
    """Fine-tune with every seed, show how it goes and what came out; returns the exit status.

    view: what the terminal shows meanwhile. show: prints what one run came to, given how many rows were held out.
    """
    with task("tokenising", unit="rows") as bar:
        prepared = prepare(course.settings)
        bar.advance(prepared.num_rows + len(prepared.held_out))
    results = []
    try:
        for seed in range(course.settings.seed, course.settings.seed + course.seeds):
            folder = course.out if course.seeds == 1 else course.out / f"seed-{seed}"
            settings = dataclasses.replace(course.settings, seed=seed)
            shown = (view or View)()
            with task(folder.name, total=1, unit="steps") as shown.bar:
                device = choose_device(course.device)
                results.append(finetune(prepared, folder, settings, device, shown.report, shown.begin))
    except Interrupted as interruption:
        console.print(f"[yellow]{interruption}[/]")
        return 128 + interruption.signal_number
    except NonFiniteLoss as failure:
        console.print(f"[red]elision finetune: {failure}[/]")
        return 1
    if len(results) > 1:
        _mean(course.out, results)
    else:
        (show or _table)(results[0], len(prepared.in_full or prepared.held_out))
    console.print("[dim]next:[/]")
    console.print(f"  elision predict --model {results[0].folder} --data TABLE", markup=False, soft_wrap=True)
    console.print(f"  elision export {results[0].folder} {course.out.name}-hf", markup=False, soft_wrap=True)
    return 0


class View:
    """What the terminal shows of a run: the bar with the latest numbers, and a line for each evaluation."""

    def __init__(self) -> None:
        self.bar, self.done = None, 0

    def begin(self, run: Run, prepared: Prepared, step: int) -> None:
        """Say what was decided."""
        what = prepared.task
        kind = {"tagging": "tags", "answering": "answers"}.get(what.type, "classes")
        shown = f"{len(what.labels)} {kind} ({', '.join(what.labels[:6])}{', ...' if len(what.labels) > 6 else ''})"
        several = len(prepared.train) - prepared.num_rows
        console.print(
            f"[bold]{run.folder}[/]: {what.type}"
            + (f" of {shown}" if what.labels else "")
            + f", {quantity(run.model.num_parameters())} parameters, {run.train.steps} steps of "
            f"{run.train.batch_size} {'examples' if several else 'rows'}, learning rate "
            f"{run.train.optimizer.learning_rate:.2g}, on {run.device}"
        )
        if prepared.num_cut:
            share = prepared.num_cut / prepared.num_rows
            fate = "are cut" if what.learns == "classify" else f"are read in parts: {len(prepared.train):,} examples"
            console.print(
                f"[yellow]{prepared.num_cut:,} training rows ({share:.1%}) are longer than {what.max_length} tokens and "
                f"{fate} (--max-length raises it)[/]"
            )
        for note in prepared.notes:
            console.print(f"[yellow]{note}[/]", soft_wrap=True)
        self.watch(prepared.in_full or prepared.held_out)
        self.done = step
        self.bar.grow(run.train.steps)
        if step:
            console.print(f"[yellow]going on from step {step}[/]")
            self.bar.advance(step)

    def watch(self, held_out: HeldOut) -> None:
        """Have held-out rows that take long say how far they are; those of most kinds do not."""

    def report(self, progress: Progress) -> None:
        """Show one report of the loop."""
        values = progress.values
        if progress.split == "train":
            self.bar.note(f"loss {values['loss']:.3f}  [dim]{quantity(values['tokens_per_second'])} tokens/s[/]")
            self.bar.advance(progress.step - self.done)
            self.done = progress.step
        elif progress.split == "validation":
            shown = "  ".join(f"{name.replace('_', ' ')} {number(name, value)}" for name, value in values.items())
            console.print(f"step {progress.step:>6}  held out:  {shown}")


def number(name: str, value: float) -> str:
    """Write a measure with as many decimals as mean something: those of written texts go up to 100."""
    return f"{value:.2f}" if name in ("bleu", "chrf", "rouge1", "rouge2", "rougeL") else f"{value:.4f}"


def show_classes(result: Result) -> None:
    """Show how each class fared, where there are classes."""
    from rich.table import Table

    if result.by_class:
        table = Table(
            title=f"held out, by class (step {result.best_step})", title_justify="left", box=None, padding=(0, 2)
        )
        table.add_column("class")
        for name in ("precision", "recall", "F1", "number"):
            table.add_column(name, justify="right")
        for line in result.by_class[:50]:
            numbers = (f"{value:.3f}" for value in (line.precision, line.recall, line.f1))
            table.add_row(line.label, *numbers, f"{line.num_rows:,}")
        console.print(table)


def _table(result: Result, num_valid: int) -> None:
    from rich.table import Table

    show_classes(result)
    table = Table(
        title=f"held out, {num_valid:,} rows", title_justify="left", show_header=False, box=None, padding=(0, 2)
    )
    for name, value in result.metrics.items():
        mark = "  [dim](picks the best checkpoint)[/]" if name == result.task.metric else ""
        table.add_row(name.replace("_", " "), f"{value:.4f}{mark}")
    table.add_row(f"[dim]{result.baseline.name}[/]", f"[dim]{result.baseline.value:.4f}[/]")
    table.add_row("time", duration(result.seconds))
    console.print(table)


def _mean(folder: Path, results: list[Result]) -> None:
    from rich.table import Table

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
    baseline = results[0].baseline
    console.print(f"  [dim]{baseline.name}: {baseline.value:.4f}[/]")
    write_json(folder / "seeds.json", {"metrics": summary, "baseline": dataclasses.asdict(baseline)})
