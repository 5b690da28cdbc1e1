"""Checkpoints: self-contained folders that are either whole or absent, and the run folder that keeps them.

A checkpoint holds recipe.json, weights.safetensors and tokenizer/; one written by training also state.json and
optimizer.safetensors (and carry.safetensors for stateful models). A run folder holds recipe.json, run.json,
metrics.jsonl, checkpoints.json (which is the last, which the best) and checkpoints/step-NNNNNNNN/.
"""

import contextlib
import dataclasses
import errno
import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from elision.atomic import replacing, write_json
from elision.errors import InputError

WEIGHTS, OPTIMIZER, CARRY, STATE, INDEX = (
    "weights.safetensors",
    "optimizer.safetensors",
    "carry.safetensors",
    "state.json",
    "checkpoints.json",
)

# What optimisers hold for a parameter, by their name and by the name it has in a checkpoint.
HELD = {
    "step": "update", "exp_avg": "first", "exp_avg_sq": "second", "sum": "squares", "rows": "rows", "columns": "columns",
}  # fmt: skip


@dataclasses.dataclass
class State:
    """Where a run stands, besides its weights. Everything here goes through JSON without loss.

    `step` updates are done. `skipped` are data steps left out after a non-finite loss. `pending` are the values of the
    steps since the last line of metrics, so that an interruption does not change what the next line says. `tokens`,
    `flops` and `seconds` are what the run has used so far. `best_loss` is the lowest held-out loss, or whatever the run
    ranks its checkpoints by.
    """

    step: int = 0
    skipped: list[int] = dataclasses.field(default_factory=list)
    pending: dict[str, list[float]] = dataclasses.field(default_factory=dict)
    tokens: int = 0
    flops: float = 0.0
    seconds: float = 0.0
    best_loss: float | None = None


def save(
    run: Path,
    state: State,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    carry: dict[str, Tensor] | None,
    *,
    is_best: bool,
    keep: int,
    keep_every: int | None,
) -> Path:
    """Write checkpoints/step-NNNNNNNN atomically, note it in checkpoints.json, then drop what is no longer kept.

    Raises: OSError (full disk, no permission) with every earlier checkpoint intact.
    """
    folder = run / "checkpoints" / f"step-{state.step:08d}"
    with _naming_space(folder), replacing(folder) as temporary:
        temporary.mkdir()
        shutil.copy(run / "recipe.json", temporary / "recipe.json")
        shutil.copytree(run / "tokenizer", temporary / "tokenizer")
        if (run / "task.json").exists():
            shutil.copy(run / "task.json", temporary / "task.json")
        write_weights(temporary, model)
        _write_tensors(_optimizer_tensors(model, optimizer), temporary / OPTIMIZER)
        if carry is not None:
            _write_tensors({name: value.contiguous() for name, value in carry.items()}, temporary / CARRY)
        files = {p.name: _digest(p) for p in sorted(temporary.glob("*.safetensors"))}
        write_json(temporary / STATE, {"format": 1, **dataclasses.asdict(state), "files": files})
    index = read_index(run)
    index["last"] = folder.name
    if is_best:
        index["best"] = folder.name
    with _naming_space(folder):
        write_json(run / INDEX, index)
    kept = sorted(path.name for path in (run / "checkpoints").glob("step-*"))
    for name in kept[:-keep]:
        forever = keep_every is not None and int(name.removeprefix("step-")) % keep_every == 0
        if name not in (index["last"], index["best"]) and not forever:
            shutil.rmtree(run / "checkpoints" / name)
    return folder


def write_weights(folder: Path, model: nn.Module) -> None:
    """Write weights.safetensors into `folder`: the model's tensors by name."""
    tensors = {name: value.detach().cpu().contiguous() for name, value in model.state_dict().items()}
    _write_tensors(tensors, folder / WEIGHTS)


def _write_tensors(tensors: dict[str, Tensor], path: Path) -> None:
    save_file(tensors, path, metadata={"format": "pt"})
    # safetensors lets nobody else read what it writes; a run is for others too, as the umask allows.
    mask = os.umask(0)
    os.umask(mask)
    path.chmod(0o666 & ~mask)


def read_index(run: Path) -> dict[str, str | None]:
    """Return {"last": name, "best": name} of a run; None where there is no checkpoint yet."""
    try:
        index = json.loads((run / INDEX).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {"last": None, "best": None}
    return {"last": index.get("last"), "best": index.get("best")}


def find(path: Path, which: str = "best") -> Path:
    """Return the checkpoint folder that `path` stands for: itself, or the best (else the last) one of a run.

    which: "best", "last", or a checkpoint's name such as "step-00001000".
    Raises: InputError when `path` is neither a run nor a checkpoint, or the run has no checkpoint yet.
    """
    path = Path(path)
    if (path / WEIGHTS).exists():
        return path
    if not (path / "recipe.json").exists():
        what = "does not exist" if not path.exists() else "is neither a run nor a checkpoint"
        raise InputError(f"{path} {what}: expected a folder with recipe.json and {WEIGHTS} or {INDEX} in it")
    index = read_index(path)
    name = which if which.startswith("step-") else (index["best"] if which == "best" else None) or index["last"]
    if name is None or not (path / "checkpoints" / name).is_dir():
        have = ", ".join(sorted(p.name for p in (path / "checkpoints").glob("step-*"))) or "none"
        raise InputError(
            f"the run {path} has no checkpoint {name or ''}; it has: {have}. Let it train until its first one"
        )
    return path / "checkpoints" / name


def read_weights(folder: Path) -> dict[str, Tensor]:
    """Read the weights of a checkpoint. Raises: InputError naming a torn or foreign file."""
    return _read_tensors(folder / WEIGHTS, _recorded(folder))


def resume(run: Path, model: nn.Module, optimizer: torch.optim.Optimizer) -> tuple[State, dict[str, Tensor] | None]:
    """Put the last checkpoint of a run into model and optimiser; a new State when there is none yet.

    Raises: InputError naming the file when the checkpoint is torn, or does not fit the model.
    """
    _clear_away(run)
    if read_index(run)["last"] is None:
        return State(), None
    folder = find(run, "last")
    recorded = _recorded(folder)
    load_into(model, _read_tensors(folder / WEIGHTS, recorded), folder)
    moments = _read_tensors(folder / OPTIMIZER, recorded)
    for name, parameter in model.named_parameters():
        # The fused kernels keep their counter beside the parameter.
        held = {
            theirs: moments[f"{ours}.{name}"].to(parameter.device)
            for theirs, ours in HELD.items()
            if f"{ours}.{name}" in moments
        }
        if held:
            optimizer.state[parameter] = held
    carry = _read_tensors(folder / CARRY, recorded) if (folder / CARRY).exists() else None
    values = json.loads((folder / STATE).read_text(encoding="utf-8"))
    known = {field.name for field in dataclasses.fields(State)}
    return State(**{name: value for name, value in values.items() if name in known}), carry


def _clear_away(run: Path) -> None:
    """Remove what a killed process left half-written; put back a checkpoint that it was about to replace."""
    for leftover in (run / "checkpoints").glob(".step-*"):
        place = leftover.with_name(leftover.name[1:].split(".")[0])
        if leftover.suffix == ".old" and not place.exists():
            leftover.rename(place)
        else:
            shutil.rmtree(leftover)


def add_skipped(run: Path, data_step: int) -> int:
    """Note in the last checkpoint that `data_step` is to be left out from there on; returns the checkpoint's step."""
    folder = find(run, "last")
    values = json.loads((folder / STATE).read_text(encoding="utf-8"))
    values["skipped"] = sorted({*values["skipped"], data_step})
    write_json(folder / STATE, values)
    return values["step"]


def load_into(model: nn.Module, weights: dict[str, Tensor], source: Path) -> None:
    """Copy weights into a model. Raises: InputError naming the tensors that are missing, foreign or of other shape."""
    own = model.state_dict()
    missing, foreign = sorted(own.keys() - weights.keys()), sorted(weights.keys() - own.keys())
    if missing or foreign:
        raise InputError(
            f"{source} does not fit this recipe: missing {missing[:3] or 'none'}, unknown {foreign[:3] or 'none'}"
        )
    for name, value in weights.items():
        if value.shape != own[name].shape:
            raise InputError(
                f"{source} does not fit this recipe: {name} has shape {tuple(value.shape)}, "
                f"expected {tuple(own[name].shape)}"
            )
    model.load_state_dict(weights)


def _optimizer_tensors(model: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    return {
        f"{HELD[kind]}.{name}": value.cpu().contiguous().clone()
        for name, parameter in model.named_parameters()
        for kind, value in optimizer.state.get(parameter, {}).items()
    }


def _recorded(folder: Path) -> dict[str, str]:
    try:
        return json.loads((folder / STATE).read_text(encoding="utf-8")).get("files", {})
    except FileNotFoundError:
        return {}
    except (json.JSONDecodeError, UnicodeDecodeError):
        raise InputError(f"{folder / STATE} is torn: {_advice(folder)}") from None


def _read_tensors(path: Path, recorded: dict[str, str]) -> dict[str, Tensor]:
    if not path.exists():
        raise InputError(f"{path} is missing: {_advice(path.parent)}")
    if path.name in recorded and _digest(path) != recorded[path.name]:
        raise InputError(
            f"{path} is torn or was changed (its checksum differs from state.json): {_advice(path.parent)}"
        )
    try:
        return load_file(path)
    except SafetensorError as error:
        raise InputError(f"{path} is not a whole safetensors file ({error}): {_advice(path.parent)}") from None


def _advice(folder: Path) -> str:
    if folder.parent.name != "checkpoints":
        return "write it again, or name another folder"
    others = sorted(other.name for other in folder.parent.glob("step-*") if other.name != folder.name)
    if not others:
        return f"delete {folder.parent.parent} and start again"
    return f'to go back, delete {folder} and set "last" in {folder.parent.parent / INDEX} to "{others[-1]}"'


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextlib.contextmanager
def _naming_space(folder: Path) -> Iterator[None]:
    """Say what a full disk (or a limit, or a lost permission) means for the run."""
    try:
        yield
    except (OSError, SafetensorError) as error:
        code = getattr(error, "errno", None) or errno.EIO
        reason = getattr(error, "strerror", None) or str(error)
        if code in (errno.ENOSPC, errno.EDQUOT) or "No space left" in reason:
            code, reason = errno.ENOSPC, "the disk is full"
        raise OSError(
            code,
            f"{folder.name} was not written: {reason}. The checkpoints before it are intact; put that right and start "
            f"the same command again",
            str(folder),
        ) from None
