"""ELMo's own files: options.json and weights.hdf5 as bilm wrote them and AllenNLP reads them, and vocab.txt.

Matrices lie as TensorFlow has them, [inputs, outputs]; the kernel of an LSTM holds the rows for what the cell reads above
those for its state, and its gates in the order i, j, f, o. The output table, which the published files lack, is kept
beside as softmax/W and softmax/b; who looks for ELMo alone does not mind.
"""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from elision import recipes
from elision.atomic import write_json, write_text
from elision.errors import InputError
from elision.export.reading import Imported
from elision.model.characters import NUM_CHARACTERS, spell
from elision.model.elmo import Elmo
from elision.model.language_model import LanguageModel
from elision.objectives import BidirectionalLM
from elision.recipe import Recipe
from elision.text.tokenizer import Tokenizer, Words
from elision.text.words import SPECIAL, with_words, word_splitter

if TYPE_CHECKING:
    from elision.loaded import Loaded

OPTIONS, WEIGHTS, VOCABULARY = "options.json", "weights.hdf5", "vocab.txt"

# What a tensor of theirs is made of: views of ours, in columns side by side and rows below each other.
Grid = list[list[Tensor]]


def import_h5py() -> Any:
    """Return the package that reads and writes HDF5. Raises: InputError, saying how to get it."""
    try:
        import h5py
    except ImportError:
        raise InputError("HDF5 files need the package h5py: pip install 'elision[elmo]'") from None
    return h5py


def key_map(state: dict[str, Tensor], backbone: Elmo) -> dict[str, Grid]:
    """Return for every tensor of theirs the views of `state` that hold the same numbers: read or written, one table."""
    encoder = "backbone.embeddings.encoder."

    def transposed(name: str) -> Grid:
        return [[state[f"{encoder}{name}.weight"].T]]

    def plain(name: str) -> Grid:
        return [[state[encoder + name]]]

    grids = {"char_embed": plain("characters.weight")}
    for n, (reach, number) in enumerate(backbone.filters):
        weight = state[f"{encoder}filters.{n}"]
        grids[f"CNN/W_cnn_{n}"] = [[weight.view(1, reach, backbone.character_size, number)]]
        grids[f"CNN/b_cnn_{n}"] = plain(f"filter_biases.{n}")
    for n in range(backbone.num_highways):
        for part in ("carry", "transform"):
            grids[f"CNN_high_{n}/W_{part}"] = transposed(f"highways.{n}.{part}")
            grids[f"CNN_high_{n}/b_{part}"] = plain(f"highways.{n}.{part}.bias")
    grids["CNN_proj/W_proj"], grids["CNN_proj/b_proj"] = transposed("output"), plain("output.bias")
    for n in range(backbone.num_layers):
        ours = {name: state[f"backbone.layers.{n}.{name}"] for name in ("input_weight", "state_weight", "projection")}
        biases = state[f"backbone.layers.{n}.bias"].view(2, -1)
        for direction in range(2):
            cell = f"RNN_{direction}/RNN/MultiRNNCell/Cell{n}/LSTMCell"
            grids[f"{cell}/W_0"] = [_gates(ours[name][direction]) for name in ("input_weight", "state_weight")]
            grids[f"{cell}/B"] = [_gates(biases[direction])]
            grids[f"{cell}/W_P_0"] = [[ours["projection"][direction]]]
    if "heads.bilm.weight" in state:
        grids["softmax/W"], grids["softmax/b"] = [[state["heads.bilm.weight"]]], [[state["heads.bilm.bias"]]]
    return grids


def _gates(weight: Tensor) -> list[Tensor]:
    """Return views of the gates o, i, f, j of ours in their order: i, j, f, o."""
    gates = weight.chunk(4, -1)
    return [gates[1], gates[3], gates[2], gates[0]]


def read_arrays(arrays: dict[str, np.ndarray], state: dict[str, Tensor], backbone: Elmo, source: Path) -> None:
    """Copy their tensors into `state`. Raises: InputError naming one that is missing or has another shape."""
    for name, grid in key_map(state, backbone).items():
        if name not in arrays:
            raise InputError(f"{source} has no {name}, which a model of these options has")
        value = torch.from_numpy(arrays[name])
        wanted = _joined(grid).shape
        if value.shape != wanted:
            raise InputError(
                f"{name} in {source} has shape {tuple(value.shape)}, but these options make it {tuple(wanted)}"
            )
        rows = value.split([row[0].shape[0] for row in grid]) if len(grid) > 1 else [value]
        for row, part in zip(grid, rows):
            for view, piece in zip(row, part.split([view.shape[-1] for view in row], -1)):
                view.copy_(piece)


def _joined(grid: Grid) -> Tensor:
    return torch.cat([torch.cat(row, -1) for row in grid])


def is_folder(folder: Path) -> bool:
    """Tell whether a folder holds ELMo's files: one that ends in options.json, and HDF5 weights."""
    return Path(folder).is_dir() and bool(list(folder.glob("*options.json"))) and bool(list(_weight_files(folder)))


def _weight_files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.glob("*.hdf5") if "softmax" not in path.name)


def read_folder(folder: Path, tokenizer: Path | None = None) -> Imported:
    """Read *options.json, *weights.hdf5 (and *softmax*.hdf5) and *vocab*.txt of a folder.

    Without a vocabulary the lexicon holds the special symbols alone: words are read letter by letter all the same.

    Raises: InputError naming the option or tensor that cannot be expressed here.
    """
    folder = Path(folder)
    options = _options(_only(sorted(folder.glob("*options.json")), folder, "options.json"))
    weights = _only(_weight_files(folder), folder, "weights.hdf5")
    arrays = _read_hdf5(weights)
    for extra in sorted(folder.glob("*softmax*.hdf5")):
        arrays |= {f"softmax/{name.rsplit('/')[-1]}": value for name, value in _read_hdf5(extra).items()}
    backbone = read_options(options, folder)
    notes: list[str] = []
    files = [tokenizer] if tokenizer is not None else sorted(folder.glob("*vocab*.txt"))
    found = _read_vocabulary(_only(files, folder, VOCABULARY)) if files else None
    if found is None:
        found = with_words(word_splitter(), {symbol: number for number, symbol in enumerate(SPECIAL)})
        notes.append("the folder has no vocabulary: words are read letter by letter, but none can be predicted")
    size = found.vocabulary.size
    num_targets = len(arrays["softmax/W"]) if "softmax/W" in arrays else size
    if num_targets > size:
        raise InputError(
            f"softmax/W in {folder} has {num_targets} rows, but its vocabulary {size} words: name the file that lists "
            f"them, one a line, with --tokenizer"
        )
    recipe = _recipe(folder.resolve().name, backbone, size, num_targets)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        model = LanguageModel(backbone, recipe.objectives, size)
    state = {name: value.detach() for name, value in model.state_dict().items()}
    if "softmax/W" not in arrays:
        notes.append("the file has no output table (softmax/W): a new one, not yet trained, stands in")
        known = {name: value for name, value in state.items() if not name.startswith("heads.")}
    else:
        known = state
    read_arrays(arrays, known, backbone, weights)
    state["backbone.embeddings.spellings"].copy_(torch.from_numpy(spell(found.symbols(), backbone.num_characters)))
    return Imported(recipe, state, size, found, None, notes)


def _recipe(name: str, backbone: Elmo, vocab_size: int, num_targets: int) -> Recipe:
    base = recipes.get("elmo-original")
    objective = BidirectionalLM(num_targets=max(num_targets, len(SPECIAL)))
    return Recipe(name, Words(vocab_size=vocab_size), base.segmenter, base.noise, backbone, (objective,), base.train)


def read_options(options: dict[str, Any], source: Path) -> Elmo:
    """Return the settings that options.json describes. Raises: InputError for what cannot be expressed here."""
    try:
        lstm, cnn = options["lstm"], options["char_cnn"]
        if cnn.get("activation", "relu") != "relu":
            raise InputError(f"char_cnn.activation in {source} is {cnn['activation']!r}: only 'relu' can be read")
        if cnn.get("n_characters", NUM_CHARACTERS) not in (NUM_CHARACTERS, NUM_CHARACTERS + 1):
            raise InputError(
                f"char_cnn.n_characters in {source} is {cnn['n_characters']}: it must be {NUM_CHARACTERS}, or "
                f"{NUM_CHARACTERS + 1} with the one for padding"
            )
        return Elmo(
            num_layers=int(lstm["n_layers"]),
            hidden_size=2 * int(lstm["projection_dim"]),
            cell_size=int(lstm["dim"]),
            character_size=int(cnn["embedding"]["dim"]),
            filters=tuple((int(reach), int(number)) for reach, number in cnn["filters"]),
            num_highways=int(cnn["n_highway"]),
            num_characters=int(cnn.get("max_characters_per_token", 50)),
            cell_clip=float(lstm.get("cell_clip") or 0),
            projection_clip=float(lstm.get("proj_clip") or 0),
            residual=bool(lstm.get("use_skip_connections", False)),
            dropout=float(options.get("dropout", 0.1)),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(f"{source} holds no options of ELMo: {error} is missing or of another kind") from None


def write_options(backbone: Elmo) -> dict[str, Any]:
    """Return the content of options.json."""
    return {
        "lstm": {
            "use_skip_connections": backbone.residual,
            "projection_dim": backbone.hidden_size // 2,
            "cell_clip": backbone.cell_clip or None,
            "proj_clip": backbone.projection_clip or None,
            "dim": backbone.cell_size,
            "n_layers": backbone.num_layers,
        },
        "char_cnn": {
            "activation": "relu",
            "filters": [list(pair) for pair in backbone.filters],
            "n_highway": backbone.num_highways,
            "embedding": {"dim": backbone.character_size},
            # Readers add a character for padding, which shifts the others by one.
            "n_characters": NUM_CHARACTERS + 1,
            "max_characters_per_token": backbone.num_characters,
        },
        "bidirectional": True,
        "dropout": backbone.dropout,
    }


def write_files(loaded: "Loaded", folder: Path) -> None:
    """Write options.json, weights.hdf5 (float32, as its readers expect) and vocab.txt into `folder`."""
    h5py = import_h5py()
    backbone = loaded.recipe.backbone
    assert isinstance(backbone, Elmo)
    if loaded.task is not None:
        raise InputError(
            f"{loaded.path} is fine-tuned for {loaded.task.type}: ELMo's files have no place for its head. Export the run "
            f"that it was made from"
        )
    state = {name: value.detach().cpu() for name, value in loaded.model.state_dict().items()}
    with h5py.File(folder / WEIGHTS, "w") as file:
        for name, grid in key_map(state, backbone).items():
            file[name] = _joined(grid).float().numpy()
    write_json(folder / OPTIONS, write_options(backbone))
    write_text(folder / VOCABULARY, "".join(f"{symbol}\n" for symbol in loaded.tokenizer.symbols()))


def _options(file: Path) -> dict[str, Any]:
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise InputError(f"{file} is not valid JSON: {error}") from None
    if not isinstance(content, dict):
        raise InputError(f"{file} must hold a JSON object")
    return content


def _read_hdf5(file: Path) -> dict[str, np.ndarray]:
    h5py = import_h5py()
    arrays: dict[str, np.ndarray] = {}

    def keep(name: str, item: Any) -> None:
        if isinstance(item, h5py.Dataset):
            arrays[name] = np.asarray(item[...], np.float32)

    try:
        with h5py.File(file, "r") as opened:
            opened.visititems(keep)
    except OSError as error:
        raise InputError(f"{file} is not a whole HDF5 file ({error}): copy it again") from None
    return arrays


def _read_vocabulary(file: Path) -> Tokenizer:
    words = file.read_text(encoding="utf-8").splitlines()
    if tuple(words[:3]) != SPECIAL:
        raise InputError(f"{file} is no vocabulary of ELMo: its first lines must be {', '.join(SPECIAL)}")
    ids = {word: number for number, word in enumerate(words)}
    if len(ids) < len(words):
        twice = next(word for number, word in enumerate(words) if ids[word] != number)
        raise InputError(f"{file} lists {twice!r} twice: the rows of the output table could not be told apart")
    return with_words(word_splitter(), ids)


def _only(files: list[Path], folder: Path, name: str) -> Path:
    if len(files) != 1:
        found = ", ".join(file.name for file in files) or "none"
        raise InputError(f"{folder} should hold one file that ends in {name}, but has: {found}")
    return files[0]
