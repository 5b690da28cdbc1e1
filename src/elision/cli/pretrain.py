"""`elision pretrain`: train a recipe on a token store."""

import dataclasses
import sys
from pathlib import Path
from typing import Annotated

import tyro

from elision import recipes
from elision.data.store import Store
from elision.errors import InputError
from elision.progress import console, duration, quantity, task
from elision.recipe import Recipe
from elision.train.checkpoint import State, find, read_index
from elision.train.loop import Interrupted, NonFiniteLoss, OutOfMemory, Progress, Run, fit
from elision.train.metrics import read_metrics
from elision.train.precision import choose_device


@dataclasses.dataclass(frozen=True)
class Pretrain:
    """Train a recipe on a token store, from scratch or from an earlier model.

    Every field of the recipe is an option. Start the same command again after an interruption of any kind, and the run
    goes on exactly where it was.

    For example:

    elision pretrain bert-mini --data store --train.budget 20min

    elision pretrain gpt2-tiny --data store --train.steps 2000 --backbone.num-layers 6 --out runs/deeper

    elision pretrain --config runs/deeper/recipe.json --data other-store --out runs/again
    """

    data: Annotated[Path, tyro.conf.arg(metavar="STORE")]
    """the token store to learn from (made by `elision prepare`)"""
    recipe: Annotated[Recipe, tyro.conf.arg(name="")]
    out: Annotated[Path | None, tyro.conf.arg(metavar="RUN")] = None
    """folder of the run; default: runs/NAME"""
    init_from: Annotated[Path | None, tyro.conf.arg(metavar="PATH")] = None
    """start from the weights of this run, checkpoint or Hugging Face folder instead of random ones"""
    device: str = "auto"
    """auto, cpu, cuda or cuda:N"""


def main(arguments: list[str]) -> int:
    """Run the command."""
    settings = parse(arguments)
    from elision.atomic import locked
    from elision.train.pretrain import prepare_run

    store = Store.open(settings.data)
    folder = settings.out or Path("runs") / settings.recipe.name
    with locked(folder, "trained"):
        console.print(f"[dim]preparing {settings.recipe.name} on {settings.data} ...[/]")
        view = View()
        run = prepare_run(
            settings.recipe,
            store,
            folder,
            device=choose_device(settings.device),
            init_from=settings.init_from,
            report=view.report,
        )
        last = read_index(folder)["last"]
        started_at = int(last.removeprefix("step-")) if last else 0
        view.introduce(run, started_at)
        try:
            with task(settings.recipe.name, total=run.train.steps, unit="steps", start=started_at) as view.bar:
                view.done = started_at
                state = fit(run)
        except Interrupted as interruption:
            console.print(f"[yellow]{interruption}[/]")
            return 128 + interruption.signal_number
        except (NonFiniteLoss, OutOfMemory) as failure:
            console.print(f"[red]elision pretrain: {failure}[/]")
            return 1
    summarise(run, state, settings.data)
    return 0


def parse(arguments: list[str]) -> Pretrain:
    """Read the command line: the recipe's name or --config first, since the options are the fields of that recipe."""
    # "--config=FILE" means the same as "--config FILE".
    arguments = [part for whole in arguments for part in _split(whole)]
    if "--config" in arguments:
        at = arguments.index("--config")
        if at + 1 == len(arguments):
            raise InputError("--config needs a file: the recipe.json of a run")
        recipe = Recipe.load(Path(arguments[at + 1]))
        del arguments[at : at + 2]
    elif arguments and not arguments[0].startswith("-"):
        recipe = recipes.get(arguments.pop(0))
    elif any(flag in arguments for flag in ("-h", "--help")):
        recipe = recipes.get("bert-base")
        sys.stdout.write("usage: elision pretrain RECIPE --data STORE [OPTIONS]\n\n")
        sys.stdout.write(
            f"RECIPE is one of: {', '.join(recipes.names())}.\nThe options below are those of bert-base.\n\n"
        )
    else:
        raise InputError(
            "name a recipe first (elision pretrain bert-mini --data STORE) or give one with --config FILE; "
            "`elision recipes` lists them"
        )
    default = Pretrain(data=tyro.MISSING, recipe=recipe)
    return tyro.cli(
        Pretrain,
        prog=f"elision pretrain {recipe.name}",
        args=arguments,
        default=default,
        config=(tyro.conf.AvoidSubcommands,),
    )


def _split(argument: str) -> list[str]:
    return argument.split("=", 1) if argument.startswith("--config=") else [argument]


class View:
    """What the terminal shows of a run: the bar with the latest numbers, and a line for each evaluation."""

    def __init__(self) -> None:
        self.bar, self.done = None, 0

    def introduce(self, run: Run, started_at: int) -> None:
        """Say what will be trained."""
        parameters = quantity(run.model.num_parameters())
        turns = ", ".join(f"{len(turn.plan):,} of {turn.turn}" for turn in run.data.turns)
        train = run.train
        growing = "" if train.ramp is None else f"{train.ramp.initial_size} to "
        console.print(
            f"[bold]{run.folder}[/]: {parameters} parameters, {train.steps} steps of {growing}{train.batch_size} examples "
            f"({len(run.data.plan):,} in an epoch{f', in turn with {turns}' if turns else ''}) on {run.device}"
        )
        if started_at:
            console.print(f"[yellow]going on from step {started_at}[/]")

    def report(self, progress: Progress) -> None:
        """Show one report of the loop."""
        values = progress.values
        if progress.split == "train":
            if self.bar is not None:
                speed = f"{quantity(values['tokens_per_second'])} tokens/s, {values['flop_utilisation']:.0%} of peak"
                self.bar.note(f"loss {values['loss']:.3f}  [dim]{speed}[/]")
                self.bar.advance(progress.step - self.done)
            self.done = progress.step
        elif progress.split == "validation":
            shown = "  ".join(f"{name.replace('_', ' ')} {value:.4f}" for name, value in values.items())
            console.print(f"step {progress.step:>7}  held out:  {shown}")
        else:
            console.print(f"[yellow]loss not finite: back to step {progress.step}, leaving out that batch[/]")


def summarise(run: Run, state: State, data: Path) -> None:
    """Print how the run ended and what can be done with it."""
    from rich.table import Table

    table = Table(title=str(run.folder), title_justify="left", show_header=False, box=None, padding=(0, 2))
    lines = read_metrics(run.folder)
    held_out = [line for line in lines if line["split"] == "validation"]
    table.add_row("steps", f"{state.step:,}")
    table.add_row("tokens read", quantity(state.tokens))
    table.add_row("time", duration(state.seconds))
    table.add_row("model FLOPs", quantity(state.flops))
    if held_out:
        best = min(held_out, key=lambda line: line["loss"])
        for name, value in best.items():
            if name not in ("step", "split"):
                table.add_row(
                    f"held out: {name.replace('_', ' ')}", f"{value:.4f}  [dim](step {best['step']}, the best)[/]"
                )
    table.add_row("best checkpoint", str(find(run.folder)))
    console.print(table)
    console.print("[dim]next:[/]")
    console.print(f"  elision evaluate {run.folder} --data {data}", markup=False)
    console.print(f"  elision export {run.folder} {run.folder}-hf", markup=False)
