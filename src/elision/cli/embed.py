"""`elision embed`: vectors of texts or of their tokens, for other models to use."""

import dataclasses
import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np
import tyro

from elision.errors import InputError
from elision.progress import console

if TYPE_CHECKING:
    from elision.embedding import EmbeddedText, Layers

# Texts in a row group of a Parquet file.
GROUP = 1024


@dataclasses.dataclass(frozen=True)
class Embed:
    """Turn every line of a text file into vectors: one for the line, or one for each of its tokens.

    A line's vector is the mean over its tokens, special symbols left out. ELMo gives its mix of all layers (the plain
    mean, until a task has trained it) or any of them, and reads words that it never saw letter by letter; other models
    give their last layer.

    The ending of --out says what is written: .npz (NumPy), .h5 (HDF5; for tokens a data set for each line, "0", "1" ...,
    and sentence_to_index, as ELMo's own tools write it) or .parquet.

    For example:

    elision embed runs/elmo-tiny --input texts.txt --out vectors.npz

    elision embed runs/elmo-tiny --input texts.txt --out layers.h5 --per token --layers all
    """

    model: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="MODEL")]
    """a run (its best checkpoint), a checkpoint, a fine-tuned or a Hugging Face folder"""
    input: Annotated[Path, tyro.conf.arg(metavar="FILE")]
    """UTF-8 text, one text a line"""
    out: Annotated[Path, tyro.conf.arg(metavar="FILE")]
    """the file to write: .npz, .h5 or .parquet"""
    per: Literal["text", "token"] = "text"
    """one vector for each text, or for each token (of ELMo: each word)"""
    layers: Annotated[str, tyro.conf.arg(metavar="mix|all|N")] = "mix"
    """what fine-tuning reads, all layers, or one by its number (ELMo: 0 is the word without context)"""
    language: str | None = None
    """of the text, where the model has embeddings of languages; default: its first"""
    device: str = "auto"
    """auto, cpu, cuda or cuda:N"""
    overwrite: bool = False
    """replace the file if it is there"""


def main(arguments: list[str]) -> int:
    """Run the command."""
    settings = tyro.cli(Embed, prog="elision embed", args=arguments)
    layers = parse_layers(settings.layers)
    writers = {".npz": write_npz, ".h5": write_hdf5, ".hdf5": write_hdf5, ".parquet": write_parquet}
    if settings.out.suffix not in writers:
        raise InputError(f"--out is {settings.out}: its ending says what to write, one of {', '.join(writers)}")
    if settings.out.exists() and not settings.overwrite:
        raise InputError(f"{settings.out} is there already: name another file, or replace it with --overwrite")
    texts = read_lines(settings.input)
    from elision.atomic import replacing
    from elision.embedding import check_layers, embedded_texts
    from elision.loaded import load
    from elision.progress import task
    from elision.train.precision import choose_device

    loaded = load(settings.model, device=choose_device(settings.device), language=settings.language)
    for note in loaded.notes:
        console.print(f"[yellow]note:[/] {note}")
    check_layers(loaded, layers)
    shape: tuple[int, ...] = ()
    with replacing(settings.out) as temporary, task("embed", total=len(texts), unit="texts") as bar:

        def watched() -> Iterator["EmbeddedText"]:
            nonlocal shape
            for text in embedded_texts(loaded, texts, layers):
                shape = (text.states.shape[0], text.states.shape[2])
                yield text
                bar.advance()

        writers[settings.out.suffix](temporary, texts, watched(), settings.per, layers)
    what = f"{len(texts)} texts" if settings.per == "text" else f"the tokens of {len(texts)} texts"
    kind = f"{shape[0]} layers of width {shape[1]}" if layers == "all" else f"width {shape[1]}"
    console.print(f"{what} -> [bold]{settings.out}[/] ({kind})")
    return 0


def parse_layers(given: str) -> "Layers":
    """Read --layers. Raises: InputError when it is none of mix, all and a number."""
    if given in ("mix", "all"):
        return given  # type: ignore[return-value]
    if not given.isdigit():
        raise InputError(f"--layers is {given!r}: give mix, all, or the number of a layer")
    return int(given)


def read_lines(path: Path) -> list[str]:
    """Return the lines of a file. Raises: InputError when it is no text, is empty, or a line holds nothing."""
    try:
        texts = path.read_text(encoding="utf-8").splitlines()
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is not UTF-8 text ({error}): convert it first") from None
    except FileNotFoundError:
        raise InputError(f"there is no file {path}") from None
    if not texts:
        raise InputError(f"{path} is empty: give one text a line")
    blank = [number for number, text in enumerate(texts, 1) if not text.strip()]
    if blank:
        raise InputError(f"line {blank[0]} of {path} is empty: lines and vectors could not be told apart; remove it")
    return texts


def array_of(text: "EmbeddedText", per: str, layers: "Layers") -> np.ndarray:
    """Return float32 [D] or [T, D]; with a dimension for the layers in front when all are wanted."""
    states = (text.vector if per == "text" else text.states).float()
    return (states if layers == "all" else states[0]).numpy()


def write_npz(path: Path, texts: list[str], embedded: Iterator["EmbeddedText"], per: str, layers: "Layers") -> None:
    """Write `vectors`, of tokens those of all texts in a row with `tokens` and `starts`: text n is starts[n] to [n + 1]."""
    arrays, tokens, sizes = [], [], []
    for text in embedded:
        arrays.append(array_of(text, per, layers))
        tokens += text.tokens
        sizes.append(len(text.tokens))
    if per == "text":
        contents = {"vectors": np.stack(arrays)}
    else:
        starts = np.concatenate([[0], np.cumsum(sizes)])
        contents = {"vectors": np.concatenate(arrays, -2), "tokens": np.array(tokens), "starts": starts}
    # Handed a file, NumPy does not put an ending of its own to the name.
    with path.open("wb") as file:
        np.savez(file, **contents)


def write_hdf5(path: Path, texts: list[str], embedded: Iterator["EmbeddedText"], per: str, layers: "Layers") -> None:
    """Write `vectors`, or for tokens a data set for each text by its number, and which text has which number."""
    from elision.export.bilm import import_h5py

    h5py = import_h5py()
    with h5py.File(path, "w") as file:
        if per == "text":
            file["vectors"] = np.stack([array_of(text, per, layers) for text in embedded])
            return
        for number, text in enumerate(embedded):
            data = file.create_dataset(str(number), data=array_of(text, per, layers))
            data.attrs["tokens"] = json.dumps(text.tokens, ensure_ascii=False)
        index = json.dumps({text: str(number) for number, text in enumerate(texts)}, ensure_ascii=False)
        file.create_dataset("sentence_to_index", (1,), dtype=h5py.string_dtype("utf-8"))[0] = index


def write_parquet(path: Path, texts: list[str], embedded: Iterator["EmbeddedText"], per: str, layers: "Layers") -> None:
    """Write a row for each text: `text`, for tokens `tokens`, and `vector` or `vectors` as (lists of) lists."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    kind: Any = pa.list_(pa.float32())
    for _ in range((per == "token") + (layers == "all")):
        kind = pa.list_(kind)
    columns = [("text", pa.string()), *([("tokens", pa.list_(pa.string()))] if per == "token" else [])]
    schema = pa.schema([*columns, ("vector" if per == "text" else "vectors", kind)])
    with pq.ParquetWriter(path, schema) as writer:
        rows: list[list[Any]] = []
        for number, text in enumerate(embedded):
            values = array_of(text, per, layers).tolist()
            rows.append([texts[number], *([text.tokens] if per == "token" else []), values])
            if len(rows) == GROUP or number + 1 == len(texts):
                writer.write_table(pa.table([list(column) for column in zip(*rows)], schema=schema))
                rows = []
