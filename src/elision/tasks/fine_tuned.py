"""Opening a fine-tuned model: a run, one of its checkpoints, an import, or a Hugging Face folder with such a head."""

from pathlib import Path

import torch

import elision
from elision.errors import InputError
from elision.loaded import Loaded
from elision.tasks.task import FILE


def load_fine_tuned(path: str | Path, learns: str | None, device: torch.device, language: str | None = None) -> Loaded:
    """Load the best checkpoint of a run of `elision finetune LEARNS` (None: of any), or an import with such a head.

    language: of the texts it will read, where it has embeddings of languages; None = that of its fine-tuning.

    Raises: InputError when `path` is none, naming what to do.
    """
    path = Path(path)
    seeds = sorted(str(folder) for folder in path.glob("seed-*") if (folder / FILE).exists())
    if seeds:
        raise InputError(f"{path} holds the runs of several seeds: name one of {', '.join(seeds)}")
    loaded = elision.load(path, device=device, language=language)
    if loaded.task is None:
        raise InputError(
            f"{path} is no run of `elision finetune`: make one with `elision finetune {learns or 'classify'} --model {path}`"
        )
    if learns is not None and loaded.task.learns != learns:
        raise InputError(
            f"{path} was fine-tuned for {loaded.task.type}: it cannot {learns}. Make one that can with `elision finetune "
            f"{learns} --model {path}`"
        )
    return loaded
