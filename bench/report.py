"""How results are shown: tables on the terminal, the same as Markdown, a file for each machine."""

import datetime
import os
import platform
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from elision.atomic import write_json, write_text
from elision.progress import quantity

README = Path(__file__).parent / "README.md"
RESULTS = Path(__file__).parent / "results"
BEGIN, END = "<!-- results: begin -->", "<!-- results: end -->"

PRETRAIN_COLUMNS = (
    "case",
    "precision",
    "times as fast (range)",
    "tokens/s",
    "theirs",
    "utilisation",
    "theirs",
    "peak memory",
    "theirs",
    "grown by",
    "theirs",
)
LOADER_COLUMNS = ("data", "loader tokens/s", "trainer", "tokens/s", "loader is")

Row = dict[str, Any]


def pretrain_cells(row: Row) -> list[str]:
    """Return the cells of one line of the training table."""
    short = {"float32": "fp32", "bfloat16": "bf16"}
    mine, other = short[row["precision"]], short[row["their_precision"]]
    return [
        row["case"] + (", compiled" if row["compiled"] else ""),
        mine if mine == other else f"{mine} : {other}",
        f"{row['ratio']:.2f}x ({row['ratio_min']:.2f}-{row['ratio_max']:.2f})",
        quantity(row["our_tokens_per_second"]),
        quantity(row["their_tokens_per_second"]),
        f"{row['our_flop_utilisation']:.0%}",
        f"{row['their_flop_utilisation']:.0%}",
        *(f"{row[name] / 1e9:.2f} GB" for name in ("our_peak_bytes", "their_peak_bytes")),
        *(f"{row[name] / 1e9:.2f} GB" for name in ("our_growth_bytes", "their_growth_bytes")),
    ]


def loader_cells(row: Row) -> list[str]:
    """Return the cells of one line of the loader table."""
    return [
        row["case"],
        quantity(row["loader_tokens_per_second"]),
        row["trainer"],
        quantity(row["trainer_tokens_per_second"]),
        f"{row['ratio']:.1f}x",
    ]


def print_pretrain(rows: Sequence[Row]) -> None:
    """Print the training table."""
    print_table("a training step beside transformers", PRETRAIN_COLUMNS, [pretrain_cells(row) for row in rows])


def print_loader(rows: Sequence[Row]) -> None:
    """Print the loader table."""
    print_table("the loader beside the trainer that it feeds", LOADER_COLUMNS, [loader_cells(row) for row in rows])


def print_table(title: str, columns: Sequence[str], lines: Sequence[Sequence[str]]) -> None:
    """Print a table as wide as it needs to be."""
    # A log is as wide as it needs to be; only a terminal has an edge.
    console = Console(highlight=False, width=None if sys.stdout.isatty() else 200)
    table = Table(title=title, title_justify="left", title_style="bold", box=None, pad_edge=False, header_style="dim")
    for index, column in enumerate(columns):
        table.add_column(column, justify="left" if index == 0 else "right")
    for line in lines:
        table.add_row(*line)
    console.print(table)


def machine(device: str = "cpu") -> dict[str, Any]:
    """Return what the results depend on: hardware, versions, date, command."""
    import torch
    import transformers

    return {
        "cpu": _cpu_model(),
        "num_cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "device": torch.cuda.get_device_name() if device.startswith("cuda") else "cpu",
        "python": platform.python_version(),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "date": datetime.date.today().isoformat(),
        "command": " ".join(["python -m", _module(), *sys.argv[1:]]),
        "load_before": os.getloadavg()[0] if hasattr(os, "getloadavg") else None,
    }


def _module() -> str:
    name = Path(sys.argv[0]).stem
    return "bench" if name in ("__main__", "pytest") else f"bench.{name}"


def _cpu_model() -> str:
    info = Path("/proc/cpuinfo")
    if not info.exists():
        return platform.processor() or platform.machine()
    text = info.read_text()
    found = re.search(r"^model name\s*:\s*(.+)$", text, re.MULTILINE)
    flags = re.search(r"^flags\s*:\s*(.+)$", text, re.MULTILINE)
    units = [name for name in ("avx2", "avx512f", "avx512_bf16", "amx_bf16") if flags and name in flags[1].split()]
    return f"{found[1] if found else platform.machine()} ({', '.join(units) or 'no vector extensions known'})"


def save(results: Row) -> Path:
    """Write the results to bench/results/DATE-HOST.json; returns the path."""
    about = results["machine"]
    kind = about["device"] if about["device"] != "cpu" else f"{about['num_cores']}-core-{platform.machine()}"
    path = RESULTS / f"{about['date']}-{re.sub('[^A-Za-z0-9_]+', '-', kind).strip('-').lower()}.json"
    write_json(path, results)
    return path


def write_readme(results: Row, readme: Path = README) -> None:
    """Put the results between the two markers of bench/README.md."""
    before, rest = readme.read_text(encoding="utf-8").split(BEGIN)
    _, after = rest.split(END)
    write_text(readme, f"{before}{BEGIN}\n{markdown(results)}\n{END}{after}")


def write_section(name: str, columns: Sequence[str], lines: Sequence[Sequence[str]], readme: Path = README) -> None:
    """Put a table between the two markers of that name of bench/README.md, with the machine and the command above it."""
    begin, end = f"<!-- {name}: begin -->", f"<!-- {name}: end -->"
    before, rest = readme.read_text(encoding="utf-8").split(begin)
    _, after = rest.split(end)
    write_text(readme, f"{before}{begin}\n{_where(machine())}\n\n{markdown_table(columns, lines)}\n{end}{after}")


def _where(about: dict[str, Any]) -> str:
    device = "" if about["device"] == "cpu" else f" {about['device']}."
    return (
        f"{about['date']}, `{about['command']}`, {about['num_cores']} cores of {about['cpu']}.{device} "
        f"Python {about['python']}, torch {about['torch']}, transformers {about['transformers']}; "
        f"load average before the start {about['load_before']:.1f}."
    )


def markdown(results: Row) -> str:
    """Return the results as Markdown."""
    parts = [_where(results["machine"])]
    if results.get("pretrain"):
        parts.append(markdown_table(PRETRAIN_COLUMNS, [pretrain_cells(row) for row in results["pretrain"]]))
    if results.get("loader"):
        parts.append(markdown_table(LOADER_COLUMNS, [loader_cells(row) for row in results["loader"]]))
    if results.get("prepare"):
        parts.append(f"```text\n{results['prepare'].strip()}\n```")
    return "\n\n".join(parts)


def markdown_table(columns: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    rows = [columns, ["---", *["---:"] * (len(columns) - 1)], *lines]
    return "\n".join("| " + " | ".join(row) + " |" for row in rows)
