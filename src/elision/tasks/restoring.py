"""How good a model is at writing out what was left out, token by token, and how far copying from its inputs would come.

N targets.
"""

import dataclasses

import numpy as np
import torch
import torch.nn.functional as F

from elision.data.batch import Batch
from elision.model.heads import CHUNK_NUMEL
from elision.model.language_model import LanguageModel, Pass


@dataclasses.dataclass
class Restored:
    """Sums over the targets that are text, and not symbols that frame it or mark what is missing."""

    num: int = 0
    nats: float = 0.0
    right: int = 0
    copied_right: int = 0

    @torch.no_grad()
    def add(self, model: LanguageModel, done: Pass, special: np.ndarray) -> None:
        """Add the places of one pass. special: bool, of every id of the vocabulary."""
        batch = done.batch
        targets_N = batch.targets.flatten().index_select(0, batch.target_at)
        is_text_N = ~torch.tensor(special, device=targets_N.device)[targets_N]
        targets_N, at_N = targets_N[is_text_N], batch.target_at[is_text_N]
        hidden_ND = done.output.prediction.flatten(0, 1).index_select(0, at_N)
        step = max(1, CHUNK_NUMEL // model.backbone.vocab_size)
        for start in range(0, len(targets_N), step):
            part_N = targets_N[start : start + step]
            logits_NV = model.vocabulary_logits(hidden_ND[start : start + step]).float()
            self.nats += float(F.cross_entropy(logits_NV, part_N, reduction="sum"))
            self.right += int((logits_NV.argmax(-1) == part_N).sum())
        self.num += len(targets_N)
        self.copied_right += int((copied(batch, special)[is_text_N.cpu().numpy()] == targets_N.cpu().numpy()).sum())


def copied(batch: Batch, special: np.ndarray) -> np.ndarray:
    """Return the token that copying from the inputs would write at each target, int [N]; -1 where there is none to copy.

    It is what follows, in the inputs, the last two tokens written, or else the last; at the beginning the first of
    the inputs that is text.

    A worked example: after 10 11 12 2 was read, copying writes 10 first, 11 after 10, and nothing after 20.
    """
    written, documents = batch.written_inputs.cpu().numpy(), batch.written_doc_ids.cpu().numpy()
    width = written.shape[1]
    sources: dict[tuple[int, int], tuple[int, dict[tuple[int, ...], int]]] = {}
    found = np.full(len(batch.target_at), -1, np.int64)
    for number, place in enumerate(batch.target_at.tolist()):
        row, column = divmod(place, width)
        document = int(documents[row, column])
        if (row, document) not in sources:
            sources[row, document] = _followers(_source(batch, row, document), special)
        first, followers = sources[row, document]
        if _begins(batch, row, column, documents):
            found[number] = first
            continue
        last = int(written[row, column])
        before = int(written[row, column - 1]) if column and documents[row, column - 1] == document else -1
        found[number] = followers.get((before, last), followers.get((last,), -1))
    return found


def _begins(batch: Batch, row: int, column: int, documents: np.ndarray) -> bool:
    """Tell whether nothing has been written before the target at a place."""
    if batch.prefix is not None and batch.decoder_inputs is None:
        return bool(batch.prefix[row, column])
    return column == 0 or documents[row, column - 1] != documents[row, column]


def _source(batch: Batch, row: int, document: int) -> list[int]:
    """Return the ids that were read in a document, without those that begin what is written."""
    there = batch.doc_ids[row] == document
    if batch.decoder_inputs is None and batch.prefix is not None:
        there = there & batch.prefix[row]
    return batch.inputs[row][there].tolist()


def _followers(source: list[int], special: np.ndarray) -> tuple[int, dict[tuple[int, ...], int]]:
    """Return the first token of text, and what follows each token and each two tokens where they first stand."""
    followers: dict[tuple[int, ...], int] = {}
    for at in range(len(source) - 1):
        followers.setdefault((source[at],), source[at + 1])
        if at:
            followers.setdefault((source[at - 1], source[at]), source[at + 1])
    return next((token for token in source if not special[token]), -1), followers
