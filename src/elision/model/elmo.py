"""ELMo's two language models in one module: characters, then LSTMs in both directions (Peters et al. 2018).

The directions share what makes vectors of words, and nothing else. Two kinds of batches are read:

- streams (`batch.order` is there): the left half of every row goes on with a stream of text that is read forward, the
  right half with another that is read backward, each by its own direction. Their states travel in `carry`.
- texts (no order): both directions read the same row. A state starts anew with every document of it.

B rows, T tokens, D hidden size (both directions), P half of it, C cell size, V symbols, N layers, W words, K characters.
"""

import dataclasses
from collections.abc import Sequence
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from elision.data.batch import Batch
from elision.data.frame import FrameName
from elision.errors import InputError
from elision.model.backbone import Output, PerToken
from elision.model.characters import EMPTY, WordEncoder, spell
from elision.model.dropout import Dropout
from elision.model.init import NormalInit
from elision.model.lstm import ProjectedLSTM
from elision.model.visibility import Visible, permuted, same_document

# Width and number of the convolutions of all three published sizes.
FILTERS = ((1, 32), (2, 32), (3, 64), (4, 128), (5, 256), (6, 512), (7, 1024))


@dataclasses.dataclass(frozen=True)
class Elmo(PerToken):
    """A forward and a backward LSTM over words that are read letter by letter.

    What fine-tuning reads is a mix of all layers, gamma * sum_j softmax(w)_j h_j, that starts as their mean; layer 0 is
    the word without context, twice. At the place that stands for a text (its <S>) lies the mean over the text.
    """

    num_layers: int = 2
    """LSTM layers in each direction"""
    hidden_size: int = 1024
    """width of a layer, half of it for each direction"""
    cell_size: int = 4096
    """width of the memory of an LSTM; its output is projected down to half of hidden_size"""
    character_size: int = 16
    """width of the vector of a character"""
    filters: tuple[tuple[int, int], ...] = FILTERS
    """convolutions over the characters: how many characters each sees, and how many of its kind there are"""
    num_highways: int = 2
    """highway layers over the filters"""
    num_characters: int = 50
    """bytes of a word that are read, its begin and its end included; longer words are cut"""
    cell_clip: float = 3.0
    """largest absolute value of the memory; 0 = no limit"""
    projection_clip: float = 3.0
    """largest absolute value of the projected state; 0 = no limit"""
    residual: bool = True
    """add to the output of every layer but the first what it read"""
    dropout: float = 0.1
    """on what each LSTM layer reads, and on what the last one gives"""

    visibility: ClassVar[str] = "bidirectional"
    activation: ClassVar[str] = "gelu"
    norm_eps: ClassVar[float] = 1e-12
    init: ClassVar[NormalInit] = NormalInit()
    num_types: ClassVar[int] = 0
    num_languages: ClassVar[int] = 0
    frame: ClassVar[FrameName] = "elmo"
    classifier: ClassVar[str] = "none"
    max_length: ClassVar[None] = None
    skippable_flops: ClassVar[float] = 0.0
    two_streams: ClassVar[bool] = True

    def __post_init__(self) -> None:
        for name in ("num_layers", "hidden_size", "cell_size", "character_size"):
            if getattr(self, name) < 1:
                raise InputError(f"backbone.{name} is {getattr(self, name)}: it must be at least 1")
        if self.hidden_size % 2:
            raise InputError(f"backbone.hidden_size is {self.hidden_size}: it must be even, half for each direction")
        if not self.filters or any(reach < 1 or number < 1 for reach, number in self.filters):
            raise InputError(
                f"backbone.filters is {self.filters}: give pairs of (characters seen, number), both above 0"
            )
        widest = max(reach for reach, _ in self.filters)
        if self.num_characters < max(3, widest):
            raise InputError(
                f"backbone.num_characters is {self.num_characters}: it must be at least 3, and {widest} for the widest "
                f"of backbone.filters"
            )
        if not 0 <= self.dropout < 1:
            raise InputError(f"backbone.dropout is {self.dropout}: give a probability from 0 to below 1")
        for name in ("cell_clip", "projection_clip", "num_highways"):
            if getattr(self, name) < 0:
                raise InputError(f"backbone.{name} is {getattr(self, name)}: it must not be below 0")

    @property
    def embedding_width(self) -> int:
        """Width of the vector of a word without context, which each direction reads."""
        return self.hidden_size // 2

    def build(self, vocab_size: int, embeddings: bool = True) -> "ElmoModel":
        """Return the module with initialised weights."""
        return ElmoModel(self, vocab_size, embeddings)

    def check_length(self, length: int) -> None:
        """Any length can be read."""

    def visible(self, batch: Batch) -> Visible:
        """Return what each place has seen: of streams what was read before it, of texts (both directions) all."""
        return same_document(batch) if batch.order is None else permuted(batch)

    def flops_per_token(self, row_length: int) -> float:
        """Return the floating-point operations of matrix products in a forward pass, per token of a stream: one word, one
        direction. How often a word comes again within a batch, and is then not computed anew, is not known here."""
        width, cell = self.embedding_width, self.cell_size
        lstm = self.num_layers * (2 * width * 4 * cell + cell * width)
        places = self.num_characters + 1
        convolutions = sum((places - reach) * reach * self.character_size * number for reach, number in self.filters)
        total = sum(number for _, number in self.filters)
        return 2.0 * (lstm + convolutions + self.num_highways * 2 * total**2 + total * width)


class LayerMix(nn.Module):
    """gamma * sum_j softmax(w)_j h_j (Peters et al. 2018, equation 1); it starts as the mean of the layers."""

    def __init__(self, num_layers: int):
        super().__init__()
        self.weights, self.scale = nn.Parameter(torch.zeros(num_layers)), nn.Parameter(torch.ones(()))

    def forward(self, layers: Sequence[Tensor]) -> Tensor:
        """Return the mix of tensors of one shape."""
        shares = (self.scale * self.weights.softmax(0)).to(layers[0].dtype)
        return sum(share * layer for share, layer in zip(shares, layers))


class Lexicon(nn.Module):
    """How every symbol of the vocabulary is spelled, and what turns spellings into vectors."""

    def __init__(self, settings: Elmo, vocab_size: int):
        super().__init__()
        self.register_buffer("spellings", torch.full((vocab_size, settings.num_characters), EMPTY, dtype=torch.int16))
        self.encoder = WordEncoder(
            settings.embedding_width, settings.filters, settings.character_size, settings.num_highways
        )

    def forward(self, inputs_BT: Tensor) -> Tensor:
        """Return the vectors of words without context, [B, T, P]."""
        if inputs_BT.device.type != "cpu":
            # To find out which words are distinct would mean to wait for the device.
            return self.encoder(self.spellings[inputs_BT.flatten()]).unflatten(0, inputs_BT.shape)
        words_W, at_BT = inputs_BT.unique(return_inverse=True)
        return F.embedding(at_BT, self.encoder(self.spellings[words_W]))


class ElmoModel(nn.Module):
    """The module of `Elmo`."""

    pooler = None

    def __init__(self, settings: Elmo, vocab_size: int, embeddings: bool = True):
        super().__init__()
        self.settings, self.vocab_size = settings, vocab_size
        self.embeddings = Lexicon(settings, vocab_size) if embeddings else None
        self.layers = nn.ModuleList(
            ProjectedLSTM(
                settings.embedding_width,
                settings.cell_size,
                settings.embedding_width,
                cell_clip=settings.cell_clip,
                projection_clip=settings.projection_clip,
            )
            for _ in range(settings.num_layers)
        )
        self.dropout = Dropout(settings.dropout)
        self.mix = LayerMix(settings.num_layers + 1)
        # The loops over time are one function each, which `torch.compile` would only unroll.
        self.blocks = nn.ModuleList()

    def forward(
        self,
        batch: Batch,
        carry: dict[str, Tensor] | None = None,
        visible: Tensor | None = None,
        needed_only: bool = False,
        embedded: Tensor | None = None,
    ) -> Output:
        """Return the states of a batch; see `BackboneModel` and the top of this file.

        Of streams, hidden and prediction are [B, T, P]: at each place the last layer of the direction that reads there.
        Of texts, hidden [B, T, D] is the mix of all layers, and prediction [B, T, P] is the forward half of the last.

        Raises: InputError for `visible`: an LSTM sees what it has read, which no mask can narrow.
        """
        if visible is not None:
            raise InputError("visible cannot be given to ELMo: an LSTM sees all that it has read so far")
        if batch.order is not None:
            return self._streams(batch, carry, embedded)
        layers = self.layer_states(batch, embedded)
        return Output(self._with_summaries(self.mix(layers), batch), layers[-1][..., : self.settings.embedding_width])

    def _streams(self, batch: Batch, carry: dict[str, Tensor] | None, embedded: Tensor | None) -> Output:
        words_BTP = self._words(batch) if embedded is None else embedded
        forward, backward = words_BTP.chunk(2, 1)
        outputs, carry = self._run(torch.stack([forward, backward.flip(1)]).transpose(1, 2), None, carry)
        ahead, back = outputs[-1].transpose(1, 2)
        states_BTP = torch.cat([ahead, back.flip(1)], 1)
        return Output(states_BTP, states_BTP, carry)

    def _words(self, batch: Batch) -> Tensor:
        # Autocast ends where the LSTMs begin, whose sums over time want all their digits.
        return self.embeddings(batch.inputs).to(self.layers[0].bias.dtype)

    def layer_states(self, batch: Batch, embedded: Tensor | None = None) -> list[Tensor]:
        """Return every layer of texts that both directions read, N + 1 of [B, T, D]; the first is the word, twice."""
        words_BTP = self._words(batch) if embedded is None else embedded
        inputs = torch.stack([words_BTP, words_BTP.flip(1)]).transpose(1, 2)
        keep = None if batch.whole_rows else _keep(batch.doc_ids).to(words_BTP.dtype)
        outputs, _ = self._run(inputs, keep, None)
        sides = [output.transpose(1, 2) for output in outputs]
        return [torch.cat([words_BTP, words_BTP], -1), *(torch.cat([a, b.flip(1)], -1) for a, b in sides)]

    def _run(
        self, states: Tensor, keep: Tensor | None, carry: dict[str, Tensor] | None
    ) -> tuple[list[Tensor], dict[str, Tensor]]:
        """Run the layers over [2, T, B, P], each direction in its own reading order; returns what each layer gives."""
        settings, rows = self.settings, states.shape[2]
        if carry is None:
            dtype = self.layers[0].bias.dtype
            widths = {"hidden": settings.embedding_width, "cell": settings.cell_size}
            carry = {
                name: torch.zeros(rows, settings.num_layers, 2, width, dtype=dtype, device=states.device)
                for name, width in widths.items()
            }
        outputs, after = [], []
        # Rows come first in what is carried, layers and directions in what is computed.
        for number, (layer, hidden, cell) in enumerate(
            zip(self.layers, carry["hidden"].permute(1, 2, 0, 3), carry["cell"].permute(1, 2, 0, 3))
        ):
            states = self.dropout(states)
            output, *last = layer(states.contiguous(), hidden.contiguous(), cell.contiguous(), keep)
            states = output + states if settings.residual and number else output
            after.append(last)
            outputs.append(states)
        outputs[-1] = self.dropout(states)
        hidden, cell = (torch.stack(each).permute(2, 0, 1, 3) for each in zip(*after))
        return outputs, {"hidden": hidden.contiguous(), "cell": cell.contiguous()}

    def _with_summaries(self, hidden_BTD: Tensor, batch: Batch) -> Tensor:
        """Put the mean over each example's document at the place that stands for the example."""
        rows, length, width = hidden_BTD.shape
        # A number for each document of each row; ids within a row do not exceed its length.
        first = torch.arange(rows, device=hidden_BTD.device)[:, None] * (length + 1)
        document = (first + batch.doc_ids).flatten()
        sums = hidden_BTD.new_zeros(rows * (length + 1), width).index_add(0, document, hidden_BTD.flatten(0, 1))
        sizes = hidden_BTD.new_zeros(rows * (length + 1)).index_add(0, document, hidden_BTD.new_ones(rows * length))
        mine = document[batch.summary_at]
        means = sums.index_select(0, mine) / sizes.index_select(0, mine)[:, None]
        return hidden_BTD.flatten(0, 1).index_copy(0, batch.summary_at, means).view_as(hidden_BTD)

    @property
    def table(self) -> Tensor:
        """There is none: words are made of characters."""
        raise TypeError("ELMo reads characters and has no token table that a head could be tied to")

    def pool(self, summary_ED: Tensor) -> Tensor:
        """Return the states as they are."""
        return summary_ED

    def read_symbols(self, symbols: list[str]) -> None:
        """Take in how each id is spelled."""
        assert self.embeddings is not None
        spelled = torch.from_numpy(spell(symbols, self.settings.num_characters))
        # Tables of vocabularies that were rounded up have more rows than there are symbols.
        self.embeddings.spellings[: len(spelled)] = spelled.to(self.embeddings.spellings.device)

    def read_more_symbols(self, symbols: list[str]) -> None:
        """Append words to the lexicon: what is read anew need not have stood in the text that was learned from."""
        assert self.embeddings is not None
        old = self.embeddings.spellings
        new = torch.from_numpy(spell(symbols, self.settings.num_characters)).to(old.device)
        self.embeddings.spellings = torch.cat([old, new])
        self.vocab_size = len(self.embeddings.spellings)

    def standalone_state(self) -> dict[str, Tensor]:
        """Return the state by name."""
        return dict(self.state_dict())


def _keep(doc_ids_BT: Tensor) -> Tensor:
    """Return [2, T, B, 1]: 0 where a document starts in the reading order of each direction, else 1."""
    ids_2TB = torch.stack([doc_ids_BT, doc_ids_BT.flip(1)]).transpose(1, 2)
    keep = torch.ones_like(ids_2TB)
    keep[:, 1:] = ids_2TB[:, 1:] == ids_2TB[:, :-1]
    return keep[..., None]
