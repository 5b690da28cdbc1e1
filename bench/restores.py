"""Do encoder-decoders restore held-out text that a noise has corrupted better than a copy of what is left of it?

    python -m bench.restores                        every system of bench.learns that writes
    python -m bench.restores bart t5                some of them

It takes the runs of `bench.learns`. Held-out examples are corrupted by each system's own noise; the model writes its
answer greedily, token by token; what it wrote is put into the place of what was left out, and the whole text is compared with
the original one: chrF by sacreBLEU, 100 = the same. Beside it, the same for what was left of the text, with nothing in
the gaps.
"""

import argparse
import dataclasses

import numpy as np
import torch

import elision
from bench import report
from bench.learns import OUT, SYSTEMS
from elision.data.batch import collate
from elision.data.example import NO_TARGET, Example
from elision.data.noise import Denoising, Fragment
from elision.data.store import Store
from elision.loaded import Loaded
from elision.progress import console, task
from elision.text.vocabulary import Vocabulary
from elision.train.pretrain import loader_of

ROWS = 32


@torch.inference_mode()
def written(loaded: Loaded, examples: list[Example]) -> list[np.ndarray]:
    """Return the likeliest answer to each example, token by token, as long as the true one at most."""
    batch = collate(examples, pad_id=0, packing=False)
    read = batch.decoder_inputs.clone()
    for place in range(read.shape[1]):
        best = loaded.model.logits(dataclasses.replace(batch, decoder_inputs=read))[:, place].argmax(-1)
        if place + 1 < read.shape[1]:
            read[:, place + 1] = best
    answers = torch.cat([read[:, 1:], best[:, None]], 1).numpy()
    return [answers[row, : int((batch.targets[row] != NO_TARGET).sum())] for row in range(len(examples))]


def restored(example: Example, answer: np.ndarray, noise: object, words: Vocabulary) -> np.ndarray:
    """Return the whole text: the answer itself, or the inputs with the answer in their gaps."""
    if isinstance(noise, Denoising):
        return answer
    if isinstance(noise, Fragment):
        whole = example.inputs.copy()
        # The token after each of the decoder's places.
        whole[example.decoder_positions + 1] = answer
        return whole
    # A gap and what belongs there begin with the same sentinel.
    sentinels = set(words.sentinels.tolist())
    said: dict[int, list[int]] = {}
    current: list[int] = []
    for token in answer.tolist():
        if token == words.eos:
            break
        if token in sentinels:
            current = said.setdefault(token, [])
        else:
            current.append(token)
    filled = [said.get(token, []) if token in sentinels else [token] for token in example.inputs.tolist()]
    return np.array([token for tokens in filled for token in tokens])


def left(example: Example, noise: object, words: Vocabulary) -> np.ndarray:
    """Return what the noise has left, without the symbols of its gaps."""
    gaps = set(words.sentinels.tolist()) | {words.mask}
    if isinstance(noise, Fragment):
        return np.delete(example.inputs, example.decoder_positions + 1)
    return np.array([token for token in example.inputs.tolist() if token not in gaps])


def measure(name: str, num_examples: int) -> list[str]:
    """Measure one system; returns its line."""
    from sacrebleu.metrics import CHRF

    loaded = elision.load(OUT / "runs" / name)
    recipe, words = loaded.recipe, loaded.tokenizer.vocabulary
    store = Store.open(OUT / "stores" / store_name(name))
    loader = loader_of(recipe, store.split("validation"), words, ROWS)
    num_examples = min(num_examples, len(loader.plan))
    chosen = np.linspace(0, len(loader.plan) - 1, num_examples).astype(int).tolist()
    texts: dict[str, list[str]] = {"clean": [], "model": [], "copy": []}
    right = total = 0
    with task(f"{name}: restoring", num_examples, "examples") as bar:
        for start in range(0, num_examples, ROWS):
            indices = chosen[start : start + ROWS]
            examples = [loader.example(0, index) for index in indices]
            for index, example, answer in zip(indices, examples, written(loaded, examples), strict=True):
                texts["clean"].append(decoded(loaded, loader.plan.example(index).inputs))
                texts["model"].append(decoded(loaded, restored(example, answer, recipe.noise, words)))
                texts["copy"].append(decoded(loaded, left(example, recipe.noise, words)))
                right, total = right + int((answer == example.targets).sum()), total + len(answer)
            bar.advance(len(indices))
    scores = {kind: CHRF().corpus_score(texts[kind], [texts["clean"]]).score for kind in ("model", "copy")}
    for kind in ("clean", "copy", "model"):
        console.print(f"[dim]{kind}:[/] {texts[kind][0][:200]!r}", highlight=False)
    steps = recipe.train.steps
    return [
        name,
        f"{steps:,}",
        f"{scores['model']:.1f}",
        f"{scores['copy']:.1f}",
        f"{scores['model'] - scores['copy']:+.1f}",
    ]


def decoded(loaded: Loaded, ids: np.ndarray) -> str:
    """Return the text of ids without special symbols."""
    special = loaded.tokenizer.vocabulary.special
    return loaded.tokenizer.decode([token for token in ids.tolist() if not special[token]])


def store_name(name: str) -> str:
    """Return the folder of the store that a run of `bench.learns` was trained on."""
    spec = elision.load(OUT / "runs" / name).recipe.tokenizer
    return "-".join([type(spec).__name__.lower(), *([spec.layout] if hasattr(spec, "layout") else [])])


COLUMNS = ("system", "steps", "chrF of the restored text", "of what was left", "difference")
WRITERS = tuple(name for name, system in SYSTEMS.items() if system.writes)


def main(arguments: list[str] | None = None) -> None:
    """Measure, print the table."""
    parser = argparse.ArgumentParser(
        prog="python -m bench.restores", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("systems", nargs="*", help=f"of {', '.join(WRITERS)} (default: all)")
    parser.add_argument("--examples", type=int, default=256, help="held-out examples (default 256)")
    parser.add_argument("--write-readme", action="store_true", help="put the table into bench/README.md")
    options = parser.parse_args(arguments)
    unknown = [name for name in options.systems if name not in WRITERS]
    if unknown:
        parser.error(f"unknown: {', '.join(unknown)}; there are {', '.join(WRITERS)}")
    lines = [measure(name, options.examples) for name in options.systems or WRITERS]
    report.print_table("held-out corrupted text, restored", COLUMNS, lines)
    if options.write_readme:
        report.write_section("restores", COLUMNS, lines)


if __name__ == "__main__":
    main()
