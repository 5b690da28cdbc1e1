"""run.json: what makes a folder a run. Who started it, when, with which versions, and what was asked for."""

import shlex
import sys
import time
from pathlib import Path
from typing import Any

import torch

import elision
from elision.atomic import write_json
from elision.model.language_model import LanguageModel

ABOUT = "run.json"


def write_about(
    folder: Path, model: LanguageModel, init_from: Path | None, requested: dict[str, Any], **more: Any
) -> None:
    """Write run.json into `folder`, the last file of a new run: its presence says that the others are there.

    requested: the settings, which must be the same when the run goes on. `more` are further entries of the file.
    """
    write_json(
        folder / ABOUT,
        {
            "format": 1,
            "elision": elision.__version__,
            "torch": torch.__version__,
            "command": shlex.join(["elision", *sys.argv[1:]]),
            "started": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
            "init_from": None if init_from is None else str(init_from),
            "parameters": model.num_parameters(),
            "vocab_size": model.backbone.vocab_size,
            "requested": requested,
            **more,
        },
    )
