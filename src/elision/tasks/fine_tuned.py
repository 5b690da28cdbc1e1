"""Opening a fine-tuned model: a run, one of its checkpoints, an import, or a Hugging Face folder with such a head."""

from pathlib import Path

import torch

import elision
from elision.errors import InputError
from elision.generation.decoding import Decoding
from elision.loaded import Loaded
from elision.objectives import SequenceLM
from elision.tasks.task import FILE, WritingTask


def load_fine_tuned(path: str | Path, learns: str | None, device: torch.device, language: str | None = None) -> Loaded:
    """Load the best checkpoint of a run of `elision finetune LEARNS` (None: of any), or an import with such a head.

    An encoder-decoder that nobody says more of (an imported translator) writes as it was trained to.

    language: of the texts it will read, where it has embeddings of languages; None = that of its fine-tuning.

    Raises: InputError when `path` is none, naming what to do.
    """
    path = Path(path)
    seeds = sorted(str(folder) for folder in path.glob("seed-*") if (folder / FILE).exists())
    if seeds:
        raise InputError(f"{path} holds the runs of several seeds: name one of {', '.join(seeds)}")
    loaded = elision.load(path, device=device, language=language)
    if loaded.task is None and learns in (None, WritingTask.learns) and loaded.recipe.noise.restores == "sequence":
        loaded.task = _as_trained(loaded)
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


def _as_trained(loaded: Loaded) -> WritingTask | None:
    """Return the task of a model that was trained to write and reads in an encoder; None for any other."""
    recipe, objective = loaded.recipe, loaded.model.token_objective
    if recipe.backbone.visibility != "encoder-decoder" or not isinstance(objective, SequenceLM):
        return None
    # What has no position table wrote texts as long as those that it read.
    length = recipe.backbone.max_length or recipe.segmenter.max_length
    written = recipe.backbone.decoder.max_length or recipe.segmenter.max_length
    return WritingTask(objective, length, written, decoding=Decoding(num_tokens=written))
