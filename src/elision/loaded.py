"""`elision.load(path)`: a model ready for use, from a run, a checkpoint, a fine-tuned or a Hugging Face folder.

B rows, T tokens, V vocabulary, D hidden size, N texts.
"""

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from torch import Tensor

from elision.data.batch import Batch
from elision.embedding import embedded_texts
from elision.errors import InputError, nearest
from elision.export import bilm, generators
from elision.export.reading import read_folder
from elision.generation.decoding import Decoding
from elision.generation.texts import Generated, generate_stream, generate_texts
from elision.model.encoder_decoder import EncoderDecoderModel
from elision.model.language_model import LanguageModel
from elision.recipe import Recipe
from elision.text.tokenizer import Tokenizer
from elision.text.words import read_new_words
from elision.train import checkpoint

if TYPE_CHECKING:
    from elision.tasks.fill import Filled
    from elision.tasks.task import AnyTask

Ids = Sequence[int] | Sequence[Sequence[int]] | np.ndarray | Tensor

# The tensors with a row for each symbol: the token table, or how each is spelled in a model that reads characters.
SYMBOL_ROWS = (
    "backbone.embeddings.tokens.weight",
    "backbone.encoder.embeddings.tokens.weight",
    "backbone.embeddings.spellings",
)
# Tables of a model whose frequent tokens have wider vectors (Transformer-XL).
TABLES = "backbone.embeddings.tables."


def load(
    path: str | Path,
    *,
    which: str = "best",
    dtype: torch.dtype | Literal["stored"] | None = None,
    device: str | torch.device = "cpu",
    language: str | None = None,
) -> "Loaded":
    """Load a model and its tokenizer, in evaluation mode.

    path: a run (its best checkpoint, else its last; `which` may say "last" or "step-00001000"), a checkpoint, a
    fine-tuned folder, or a Hugging Face folder. dtype: None computes in float32 or wider, "stored" in the type of the
    file. language: of texts that the model is given, where it has embeddings of languages; None = the one it was fine-tuned
    in, or its first.

    Raises: InputError when `path` holds no model, saying what is there, or a model that does not know the language.
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
    elif (path / "config.json").is_file() or bilm.is_folder(path) or generators.is_pair(path):
        imported = read_folder(path)
        folder, recipe, tensors = path, imported.recipe, imported.tensors
        tokenizer, error, notes = imported.tokenizer, imported.tokenizer_error, imported.notes
        task = imported.task
    else:
        raise InputError(_what_is_there(path))
    stored = next(tensor.dtype for tensor in tensors.values() if tensor.is_floating_point())
    if dtype == "stored":
        dtype = stored
    elif dtype is None:
        dtype = torch.promote_types(stored, torch.float32)
    with torch.device("meta"):
        objectives = recipe.objectives if task is None else (task.objective,)
        vocab_size = _num_symbols(tensors)
        model = LanguageModel(recipe.backbone, objectives, vocab_size)
    model = model.to(dtype).to_empty(device=device)
    assert {name for name, _ in model.named_buffers()} <= model.state_dict().keys(), "a buffer would stay unset"
    checkpoint.load_into(model, tensors, folder)
    language = language or recipe.default_language
    if language is not None:
        model.backbone.speak(number_of(language, recipe))
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
        return next(self.model.parameters()).device

    def logits(
        self,
        ids: Ids,
        visible: np.ndarray | Tensor | Sequence[Any] | None = None,
        type_ids: Ids | None = None,
        positions: Ids | None = None,
        languages: Ids | None = None,
        decoder_ids: Ids | None = None,
    ) -> Tensor:
        """Return the scores of every token at every place, [B, T, V]; a text alone ([T]) is one row.

        decoder_ids [B, T]: what an encoder-decoder has written so far, begun with the symbol that starts its texts; `ids` is
        what it reads, and the scores are of what follows each of decoder_ids.

        visible: bool [B, T], False at padding (on either side), or bool [B, T, T], whether the token of the row may see
        that of the column; either only narrows what the model lets a token see (a causal one never sees ahead). A token
        that may see nothing sees itself. positions: by default they count from the first visible token of a row, so
        padding changes nothing. languages: the number of each token's language, its place in `recipe.languages`.

        Raises: InputError for ids outside the vocabulary, rows longer than the position table, shapes that disagree.
        """
        self._check_predicts_tokens()
        batch, seen_BTT = self._batch(ids, visible, type_ids, positions, languages)
        batch = self._with_decoder(batch, decoder_ids)
        with torch.no_grad():
            return self.model.logits(batch, seen_BTT)

    def fill(self, text: str, top_k: int = 5) -> "Filled":
        """Fill the blanks of a text: "Paris is the {mask} of France." ([MASK], <mask> and ___ do as well)."""
        from elision.tasks.fill import fill

        return fill(self, text, top_k)

    def generate(
        self,
        prompt: str = "",
        decoding: Decoding = Decoding(),
        *,
        num_tokens: int | None = None,
        temperature: float | None = None,
        top_k: int | None = None,
        top_p: float | None = None,
        seed: int | None = None,
        framed: bool = True,
        cache: bool = True,
    ) -> Iterator[str]:
        """Continue a prompt, or write from a source, piece by piece; the pieces join to what is written.

        The keywords stand for the fields of `decoding` that are set most. framed: put the symbols around a source that an
        encoder was trained with. A beam search gives its text as one piece.

        Raises: InputError, at the call, for what the model cannot do.
        """
        named = {"num_tokens": num_tokens, "temperature": temperature, "top_k": top_k, "top_p": top_p, "seed": seed}
        decoding = dataclasses.replace(decoding, **{name: each for name, each in named.items() if each is not None})
        return generate_stream(self.model, self.tokenizer, prompt, decoding, framed=framed, cache=cache)

    def generate_batch(
        self,
        prompts: Sequence[str],
        decoding: Decoding = Decoding(),
        *,
        framed: bool = True,
        num_rows: int = 16,
        cache: bool = True,
        hear: Callable[[int], None] = lambda done: None,
    ) -> list[list[Generated]]:
        """Return the texts written after each prompt, or from each source, `decoding.num_given` for each.

        Each gets what it would get alone. num_rows: samples or hypotheses that are written together at most. hear: told how
        many prompts were just done.
        """
        options = {"framed": framed, "num_rows": num_rows, "cache": cache, "hear": hear}
        return generate_texts(self.model, self.tokenizer, prompts, decoding, **options)

    def embed(self, texts: str | Sequence[str]) -> Tensor:
        """Return a vector for each text, [N, D]: the mean of its tokens' last states, special symbols left out."""
        texts = [texts] if isinstance(texts, str) else list(texts)
        if not texts:
            raise InputError("texts is empty: give at least one text to embed")
        return torch.cat([text.vector for text in embedded_texts(self, texts)])

    def read_words(self, texts: Iterable[str]) -> None:
        """Give the words of `texts` that were never seen an id, in a model that reads words letter by letter."""
        self._tokenizer = read_new_words(self.model.backbone, self.tokenizer, texts)

    def batch_of(self, ids: Ids, real: np.ndarray | Tensor, type_ids: Ids | None = None) -> Batch:
        """Return ids [B, T] as a batch on the model's device; `real` is False at padding."""
        return self._batch(ids, real, type_ids, None)[0]

    def _with_decoder(self, batch: Batch, decoder_ids: Ids | None) -> Batch:
        writes = isinstance(self.model.backbone, EncoderDecoderModel)
        if writes != (decoder_ids is not None):
            raise InputError(
                f"{self.recipe.name} has an encoder and a decoder: give decoder_ids, too, what it has written so far "
                f"(begun with the symbol that starts its texts)"
                if writes
                else f"decoder_ids is given, but {self.recipe.name} has no decoder beside an encoder: give ids alone"
            )
        if not writes:
            return batch
        written_BT = _rows(decoder_ids, "decoder_ids", None, self.model.backbone.vocab_size, "the vocabulary")
        if len(written_BT) != len(batch.inputs):
            raise InputError(
                f"decoder_ids has {len(written_BT)} rows, but ids have {len(batch.inputs)}: each row of the one is written from "
                f"the same row of the other"
            )
        self.recipe.backbone.decoder.check_length(written_BT.shape[1])
        positions_BT = torch.arange(written_BT.shape[1]).expand_as(written_BT)
        sides = {
            "decoder_inputs": written_BT,
            "decoder_positions": positions_BT,
            "decoder_doc_ids": torch.ones_like(written_BT),
            "targets": torch.full_like(written_BT, -100),
        }
        return dataclasses.replace(batch, **{name: value.to(self.device) for name, value in sides.items()})

    def _check_predicts_tokens(self) -> None:
        if self.model.token_objective is None:
            names = ", ".join(objective.name for objective in self.model.objectives)
            raise InputError(f"{self.path} does not predict tokens (it has: {names}): use `elision predict`")

    def _batch(
        self, ids: Ids, visible: Any, type_ids: Ids | None, positions: Ids | None, languages: Ids | None = None
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
        languages_BT = None
        if languages is not None:
            count = max(1, backbone.settings.num_languages)
            languages_BT = _rows(languages, "languages", shape, count, "the language table")
        batch = Batch(
            inputs=inputs_BT,
            positions=positions_BT,
            doc_ids=real_BT.long(),
            targets=torch.full(shape, -100),
            target_at=torch.empty(0, dtype=torch.long),
            summary_at=torch.arange(rows) * length,
            type_ids=types_BT,
            languages=languages_BT,
            num_examples=rows,
            num_tokens=int(real_BT.sum()),
            whole_rows=bool(real_BT.all()),
        )
        return batch.to(self.device), None if seen_BTT is None else seen_BTT.to(self.device)


def _num_symbols(tensors: dict[str, Tensor]) -> int:
    """Return how many rows the token table has, or all tables together where frequent tokens have a wider one."""
    rows = [len(tensors[name]) for name in SYMBOL_ROWS if name in tensors]
    return rows[0] if rows else sum(len(tensor) for name, tensor in tensors.items() if name.startswith(TABLES))


def number_of(language: str, recipe: Recipe) -> int:
    """Return the number of a language in a model's embeddings. Raises: InputError when it has none for it."""
    if recipe.backbone.num_languages < 2:
        raise InputError(f"language is {language!r}, but {recipe.name} has no embeddings of languages: leave it out")
    if language in recipe.languages:
        return recipe.languages.index(language)
    if language.isdigit() and int(language) < recipe.backbone.num_languages:
        return int(language)
    known = ", ".join(recipe.languages) or f"numbers up to {recipe.backbone.num_languages - 1}"
    raise InputError(f"language is {language!r}; {recipe.name} knows: {known}.{nearest(language, recipe.languages)}")


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
