"""How fast text is written: beside `generate` of `transformers`, greedy, with a cache.

    python -m bench.generation                  GPT-2 small and T5 small, one prompt and eight together
    python -m bench.generation gpt2 --rows 8    some of it
    python -m bench.generation --threads 1 --clock cpu     on a machine that others use

Both sides have the same weights (random, of the published size and vocabulary) in float32, read the same random prompts, and
write as many tokens; what they write is compared. A round is one call, with all that belongs to it: reading the prompt, for
ours also laying out the weights anew where there are several rows.

A single prompt is measured twice: token by token, where both sides do little else than read the weights from memory, and with
guesses (`draft_tokens`), which gain as much as a text repeats itself; greedy texts of random weights do so more than others.
"""

import argparse
import dataclasses
from typing import Any

import torch

from bench import report
from bench.pairs import compare, resident_bytes, worker
from bench.peers import hugging_face
from bench.pretrain import num_cores
from elision import recipes
from elision.atomic import write_json
from elision.export import families
from elision.generation.decode import generate_batch_ids
from elision.generation.decoding import Decoding, Symbols
from elision.model.language_model import LanguageModel
from elision.progress import console, quantity, task

# Recipe, and the symbol that a decoder reads first.
SYSTEMS = {"gpt2": ("gpt2-small", None), "t5": ("t5-small", 0)}
COLUMNS = (
    "model",
    "prompts",
    "guesses",
    "times as fast (range)",
    "tokens/s",
    "theirs",
    "peak memory",
    "theirs",
    "equal tokens",
)


@dataclasses.dataclass(frozen=True)
class Settings:
    """What is written, and how."""

    recipe: str
    start: int | None
    num_rows: int
    prompt_tokens: int
    num_tokens: int
    num_threads: int
    draft_tokens: int


class _Timed:
    """What both sides share: weights, prompts, and a number that stands for what was written."""

    def __init__(self, settings: Settings):
        torch.set_num_threads(settings.num_threads)
        torch.manual_seed(0)
        self.settings = settings
        recipe = recipes.get(settings.recipe)
        self.model = LanguageModel(recipe.backbone, recipe.objectives, recipe.tokenizer.vocab_size).eval()
        shape = (settings.num_rows, settings.prompt_tokens)
        self.prompts = torch.randint(10, recipe.tokenizer.vocab_size - 200, shape)
        self.recipe, self.written = recipe, ""

    def facts(self) -> dict[str, Any]:
        """Return the peak of memory, and what was written last."""
        return {"peak_bytes": float(resident_bytes(peak=True)), "written": self.written}


class Ours(_Timed):
    """`generate_batch_ids`."""

    def step(self) -> None:
        """Write once."""
        settings = self.settings
        symbols = Symbols(self.model.backbone.vocab_size, start=settings.start)
        decoding = Decoding(settings.num_tokens, draft_tokens=settings.draft_tokens)
        texts = generate_batch_ids(self.model, self.prompts.tolist(), decoding, symbols)
        self.written = str([list(text.ids) for (text,) in texts])


class Theirs(_Timed):
    """`generate` of the class that the recipe exports as."""

    def __init__(self, settings: Settings):
        super().__init__(settings)
        heads = tuple(objective.name for objective in self.recipe.objectives)
        theirs = hugging_face(self.recipe).eval()
        table = families.of_recipe(self.recipe, heads).key_map(self.recipe.backbone, heads)
        loaded = theirs.load_state_dict(table.to_theirs(self.model.state_dict()), strict=False)
        assert not loaded.unexpected_keys, loaded.unexpected_keys
        theirs.tie_weights()
        self.model = theirs
        self.model.generation_config.eos_token_id = None

    def step(self) -> None:
        """Write once."""
        count = self.settings.num_tokens
        ids = self.model.generate(
            self.prompts, attention_mask=torch.ones_like(self.prompts), max_new_tokens=count, do_sample=False,
            num_beams=1, pad_token_id=0, use_cache=True,
            **({} if self.settings.start is None else {"decoder_start_token_id": self.settings.start}),
        )  # fmt: skip
        self.written = str(ids[:, -count:].tolist())


def measure(settings: Settings, options: argparse.Namespace) -> dict[str, Any]:
    """Let both sides write in turns."""
    name = f"{settings.recipe}, {settings.num_rows}"
    with (
        worker(f"ours, {name}", Ours, settings) as ours,
        worker(f"theirs, {name}", Theirs, settings) as theirs,
        task(name, options.rounds + 2, "rounds") as bar,
    ):
        pair = compare(ours, theirs, options.rounds, 1, 1, options.clock, bar.advance)
    tokens = settings.num_rows * settings.num_tokens
    figures = pair.summary()
    return {
        **dataclasses.asdict(settings),
        **figures,
        "our_tokens_per_second": tokens / figures["our_seconds"],
        "their_tokens_per_second": tokens / figures["their_seconds"],
        "our_peak_bytes": pair.our_facts["peak_bytes"],
        "their_peak_bytes": pair.their_facts["peak_bytes"],
        "equal": pair.our_facts["written"] == pair.their_facts["written"],
    }


def cells(row: dict[str, Any]) -> list[str]:
    """Return the cells of one line of the table."""
    return [
        row["recipe"],
        str(row["num_rows"]),
        "yes" if row["draft_tokens"] else "no",
        f"{row['ratio']:.2f}x ({row['ratio_min']:.2f}-{row['ratio_max']:.2f})",
        quantity(row["our_tokens_per_second"]),
        quantity(row["their_tokens_per_second"]),
        *(f"{row[name] / 1e9:.2f} GB" for name in ("our_peak_bytes", "their_peak_bytes")),
        "yes" if row["equal"] else "no",
    ]


def main(arguments: list[str] | None = None) -> list[dict[str, Any]]:
    """Measure, print the table, save."""
    parser = argparse.ArgumentParser(
        prog="python -m bench.generation", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("systems", nargs="*", help=f"which of {', '.join(SYSTEMS)} (default: all)")
    parser.add_argument("--rows", type=int, nargs="+", default=[1, 8], help="prompts together (default 1 and 8)")
    parser.add_argument("--prompt-tokens", type=int, default=32, help="tokens of a prompt (default 32)")
    parser.add_argument("--num-tokens", type=int, default=64, help="new tokens (default 64)")
    parser.add_argument("--rounds", type=int, default=5, help="pairs of rounds (default 5)")
    parser.add_argument("--threads", type=int, default=num_cores(), help="threads of each side (default: all cores)")
    parser.add_argument("--clock", default="wall", choices=("wall", "cpu"), help="cpu: on a machine that others use")
    parser.add_argument("--write-readme", action="store_true", help="put the table into bench/README.md")
    options = parser.parse_args(arguments)
    unknown = [name for name in options.systems if name not in SYSTEMS]
    if unknown:
        parser.error(f"unknown: {', '.join(unknown)}; there are {', '.join(SYSTEMS)}")
    about = report.machine()
    rows: list[dict[str, Any]] = []
    for name in options.systems or SYSTEMS:
        recipe, start = SYSTEMS[name]
        for num_rows in options.rows:
            for draft_tokens in (0, Decoding().draft_tokens) if num_rows == 1 else (0,):
                settings = Settings(
                    recipe, start, num_rows, options.prompt_tokens, options.num_tokens, options.threads, draft_tokens
                )
                rows.append(measure(settings, options))
                console.print("  ".join(cells(rows[-1])), markup=False)
    report.print_table("writing beside transformers", COLUMNS, [cells(row) for row in rows])
    path = report.RESULTS / f"{about['date']}-generation.json"
    write_json(path, {"machine": about, "generation": rows})
    print(f"written: {path}")
    if options.write_readme:
        report.write_section("generation", COLUMNS, [cells(row) for row in rows])
    return rows


if __name__ == "__main__":
    main()
