"""`elision.load(path)`: a model ready for use, from a run, a checkpoint, a fine-tuned or a Hugging Face folder.

B rows, T tokens, V vocabulary, D hidden size, N texts.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from torch import Tensor

from elision.data.batch import Batch
from elision.errors import InputError
from elision.export.reading import read_folder
from elision.generate import Sampling, generate_ids, stream_text
from elision.model.language_model import LanguageModel
from elision.recipe import Recipe
from elision.text.tokenizer import Tokenizer
from elision.train import checkpoint

if TYPE_CHECKING:
    from elision.tasks.fill import Filled
    from elision.tasks.task import AnyTask

Ids = Sequence[int] | Sequence[Sequence[int]] | np.ndarray | Tensor

EMBED_ROWS = 32


def load(
    path: str | Path,
    *,
    which: str = "best",
    dtype: torch.dtype | Literal["stored"] | None = None,
    device: str | torch.device = "cpu",
) -> "Loaded":
    """Load a model and its tokenizer, in evaluation mode.

    path: a run (its best checkpoint, else its last; `which` may say "last" or "step-00001000"), a checkpoint, a
    fine-tuned folder, or a Hugging Face folder. dtype: None computes in float32 or wider, "stored" in the type of the
    file.

    Raises: InputError when `path` holds no model, saying what is there.
    """
    path = Path(path)
    notes: list[str] = []
    error, task = None, None
    if (path / "recipe.json").is_file():
        folder = checkpoint.find(path, which)
        recipe = Recipe.load(folder / "recipe.json")
        task = _task(folder)
        tensors = checkpoint.read_weights(folder)
        tokenizer: Tokenizer | None = Tokenizer.load(folder / "tokenizer")
    elif (path / "config.json").is_file():
        imported = read_folder(path)
        folder, recipe, tensors = path, imported.recipe, imported.tensors
        tokenizer, error, notes = imported.tokenizer, imported.tokenizer_error, imported.notes
    else:
        raise InputError(_what_is_there(path))
    stored = tensors["backbone.embeddings.tokens.weight"].dtype
    if dtype == "stored":
        dtype = stored
    elif dtype is None:
        dtype = torch.promote_types(stored, torch.float32)
    with torch.device("meta"):
        objectives = recipe.objectives if task is None else (task.objective,)
        model = LanguageModel(recipe.backbone, objectives, tensors["backbone.embeddings.tokens.weight"].shape[0])
    model = model.to(dtype).to_empty(device=device)
    assert {name for name, _ in model.named_buffers()} <= model.state_dict().keys(), "a buffer would stay unset"
    checkpoint.load_into(model, tensors, folder)
    return Loaded(folder, model.eval(), recipe, tokenizer, error, notes, task)


class Loaded:
    """A model with its tokenizer and recipe.

    `notes` tell what an import left out or made anew; `task` is what a fine-tuned model does, else None.
    """

    def __init__(
        self,
        path: Path,
        model: LanguageModel,
        recipe: Recipe,
        tokenizer: Tokenizer | None,
        tokenizer_error: InputError | None,
        notes: list[str],
        task: "AnyTask | None" = None,
    ):
        self.task = task
        self.path, self.model, self.recipe, self.notes = path, model, recipe, notes
        self._tokenizer, self._tokenizer_error = tokenizer, tokenizer_error

    def __repr__(self) -> str:
        size, device = self.model.num_parameters(), self.device
        return f"Loaded({self.recipe.name!r}, {size:,} parameters, {device}, {str(self.path)!r})"

    @property
    def tokenizer(self) -> Tokenizer:
        """The model's tokenizer. Raises: InputError when the folder has none (its `logits` work all the same)."""
        if self._tokenizer is None:
            assert self._tokenizer_error is not None
            raise self._tokenizer_error
        return self._tokenizer

    @property
    def device(self) -> torch.device:
        """Where the model computes."""
        return self.model.backbone.embeddings.tokens.weight.device

    def logits(
        self,
        ids: Ids,
        visible: np.ndarray | Tensor | Sequence[Any] | None = None,
        type_ids: Ids | None = None,
        positions: Ids | None = None,
    ) -> Tensor:
        """Return the scores of every token at every place, [B, T, V]; a text alone ([T]) is one row.

        visible: bool [B, T], False at padding (on either side), or bool [B, T, T], whether the token of the row may see
        that of the column; either only narrows what the model lets a token see (a causal one never sees ahead). A token
        that may see nothing sees itself. positions: by default they count from the first visible token of a row, so
        padding changes nothing.

        Raises: InputError for ids outside the vocabulary, rows longer than the position table, shapes that disagree.
        """
        self._check_predicts_tokens()
        batch, seen_BTT = self._batch(ids, visible, type_ids, positions)
        with torch.no_grad():
            if seen_BTT is None:
                return self.model.logits(batch)
            return self.model.vocabulary_logits(self.model.backbone(batch, visible=seen_BTT).prediction)

    def fill(self, text: str, top_k: int = 5) -> "Filled":
        """Fill the blanks of a text: "Paris is the {mask} of France." ([MASK], <mask> and ___ do as well)."""
        from elision.tasks.fill import fill

        return fill(self, text, top_k)

    def generate(
        self,
        prompt: str = "",
        *,
        num_tokens: int = 64,
        temperature: float = 0.0,
        top_k: int = 0,
        top_p: float = 1.0,
        seed: int | None = None,
        cache: bool = True,
    ) -> Iterator[str]:
        """Continue a prompt, piece by piece; the pieces join to the text that follows it. See `Sampling`."""
        sampling = Sampling(num_tokens, temperature, top_k, top_p, seed)
        ids = self.tokenizer.encode(prompt)
        vocabulary = self.tokenizer.vocabulary
        new = generate_ids(self.model, ids, sampling, vocabulary, cache=cache)
        return stream_text(self.tokenizer, ids, new)

    def embed(self, texts: str | Sequence[str]) -> Tensor:
        """Return a vector for each text, [N, D]: the mean of its tokens' last states, special symbols left out."""
        texts = [texts] if isinstance(texts, str) else list(texts)
        special = torch.from_numpy(self.tokenizer.vocabulary.special.copy())
        vectors = []
        for start in range(0, len(texts), EMBED_ROWS):
            encodings = self.tokenizer.raw.encode_batch(texts[start : start + EMBED_ROWS])
            empty = [n for n, encoding in enumerate(encodings, start) if not encoding.ids]
            if empty:
                raise InputError(f"text {empty[0]} is empty: there is nothing to embed")
            width = max(len(encoding.ids) for encoding in encodings)
            ids = torch.tensor([encoding.ids + [0] * (width - len(encoding.ids)) for encoding in encodings])
            types = torch.tensor([encoding.type_ids + [0] * (width - len(encoding.ids)) for encoding in encodings])
            real = torch.tensor([[n < len(encoding.ids) for n in range(width)] for encoding in encodings])
            with torch.no_grad():
                batch, _ = self._batch(ids, real, types if self.recipe.backbone.num_types else None, None)
                hidden_BTD = self.model.backbone(batch).hidden
            counted = real & ~special[ids]
            # A text of nothing but special symbols is their mean.
            counted = torch.where(counted.any(1, keepdim=True), counted, real).to(hidden_BTD.device)
            weights = counted.to(hidden_BTD.dtype)
            vectors.append(torch.einsum("btd,bt->bd", hidden_BTD, weights) / weights.sum(1, keepdim=True))
        if not vectors:
            raise InputError("texts is empty: give at least one text to embed")
        return torch.cat(vectors)

    def _check_predicts_tokens(self) -> None:
        if self.model.token_objective is None:
            names = ", ".join(objective.name for objective in self.model.objectives)
            raise InputError(f"{self.path} does not predict tokens (it has: {names}): use `elision predict`")

    def _batch(
        self, ids: Ids, visible: Any, type_ids: Ids | None, positions: Ids | None
    ) -> tuple[Batch, Tensor | None]:
        backbone = self.model.backbone
        inputs_BT = _rows(ids, "ids", None, backbone.vocab_size, "the vocabulary")
        rows, length = shape = inputs_BT.shape
        backbone.settings.check_length(length)
        seen_BTT = None
        real_BT = torch.ones(shape, dtype=torch.bool)
        if visible is not None:
            given = torch.as_tensor(visible).cpu()
            if given.dim() == 1 and rows == 1:
                given = given[None]
            if given.shape not in (shape, (rows, length, length)):
                raise InputError(
                    f"visible has shape {tuple(given.shape)}: expected {tuple(shape)} (False at padding) or "
                    f"{(rows, length, length)} (who sees whom)"
                )
            if given.dtype != torch.bool and not ((given == 0) | (given == 1)).all():
                raise InputError("visible holds numbers other than 0 and 1: give True where a token may be seen")
            if given.dim() == 2:
                real_BT = given.bool()
            else:
                seen_BTT = _seen_by_all(given.bool(), backbone.settings.visibility == "causal")
        if positions is None:
            # From the first real token of the row on; what precedes it holds position 0 and is not seen.
            first = real_BT.int().argmax(1, keepdim=True)
            positions_BT = (torch.arange(length)[None] - first).clamp(min=0)
        else:
            limit = backbone.settings.max_length or torch.iinfo(torch.int64).max
            positions_BT = _rows(positions, "positions", shape, limit, "the position table")
        types_BT = None
        if type_ids is not None:
            types_BT = _rows(type_ids, "type_ids", shape, max(1, backbone.settings.num_types), "the segment table")
        batch = Batch(
            inputs=inputs_BT,
            positions=positions_BT,
            doc_ids=real_BT.long(),
            targets=torch.full(shape, -100),
            target_at=torch.empty(0, dtype=torch.long),
            summary_at=torch.arange(rows) * length,
            type_ids=types_BT,
            num_examples=rows,
            num_tokens=int(real_BT.sum()),
            whole_rows=bool(real_BT.all()),
        )
        return batch.to(self.device), None if seen_BTT is None else seen_BTT.to(self.device)


def _rows(values: Ids, name: str, shape: torch.Size | None, limit: int, table: str) -> Tensor:
    """Return int64 [B, T]; every value lies in 0 ... limit - 1."""
    try:
        given = torch.as_tensor(values).cpu()
    except (ValueError, TypeError, RuntimeError):
        raise InputError(
            f"{name} is not a table of whole numbers: rows must be equally long (pad them, and say with visible which "
            f"places are padding)"
        ) from None
    if given.dim() == 1:
        given = given[None]
    if given.numel() == 0:
        raise InputError(f"{name} is empty: give at least one token")
    if given.dim() != 2 or given.is_floating_point() or given.is_complex() or given.dtype == torch.bool:
        raise InputError(
            f"{name} has shape {tuple(given.shape)} and type {given.dtype}: expected whole numbers [T] or [B, T]"
        )
    if shape is not None and given.shape != shape:
        if given.shape == (1, shape[1]):
            given = given.expand(shape)
        else:
            raise InputError(f"{name} has shape {tuple(given.shape)}, but ids have {tuple(shape)}: they must agree")
    given = given.long()
    outside = (given < 0) | (given >= limit)
    if outside.any():
        row, column = outside.nonzero()[0].tolist()
        raise InputError(
            f"{name}[{row}][{column}] is {int(given[row, column])}: {table} of this model goes from 0 to {limit - 1}"
        )
    return given


def _seen_by_all(seen_BTT: Tensor, causal: bool) -> Tensor:
    """Let a token that may see nothing see itself: the softmax over nothing would be no number."""
    length = seen_BTT.shape[1]
    if causal:
        seen_BTT = seen_BTT & torch.ones(length, length, dtype=torch.bool).tril()
    return seen_BTT | (torch.eye(length, dtype=torch.bool) & ~seen_BTT.any(-1, keepdim=True))


def _task(folder: Path) -> "AnyTask | None":
    from elision.tasks.task import FILE, load_task

    return load_task(folder) if (folder / FILE).is_file() else None


def _what_is_there(path: Path) -> str:
    expected = (
        "expected a run or checkpoint (recipe.json) or a Hugging Face folder (config.json with model.safetensors)"
    )
    if not path.exists():
        return f"{path} does not exist: {expected}"
    if path.is_file():
        return f"{path} is a file: give the folder it lies in; {expected}"
    if (path / "manifest.json").is_file():
        return f"{path} looks like a token store, which holds no model: {expected}"
    names = sorted(child.name for child in path.iterdir())
    shown = ", ".join(names[:5]) + (", ..." if len(names) > 5 else "") if names else "nothing"
    return f"{path} holds no model (there is {shown}): {expected}"
