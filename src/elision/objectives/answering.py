"""Extractive question answering: at which token does the answer begin, at which does it end?

Devlin et al. 2019, section 4.2: a linear layer gives every token of question and context a score as begin and one as
end; each is a softmax over the tokens of the example. Without an answer both stand at the summary token (section 4.3).

B rows, T tokens, D hidden size, E examples, N places that an answer begins or ends at.
"""

import dataclasses
from typing import ClassVar

import torch
from torch import Tensor, nn

from elision.data.batch import Batch
from elision.errors import InputError
from elision.model.backbone import BackboneModel, Output
from elision.objectives.objective import Objective, Term, Terms

# What `Example.targets` holds at the two places of an answer; their sum where it is one token long.
BEGIN, END = 1, 2


class AnsweringHead(nn.Module):
    """Dropout and a linear layer with two outputs: scores as begin and as end."""

    def __init__(self, hidden_size: int, dropout: float):
        super().__init__()
        self.dropout = nn.Dropout(dropout)
        self.output = nn.Linear(hidden_size, 2)

    def forward(self, hidden_BTD: Tensor) -> Tensor:
        """Return the scores [B, T, 2] in float32 (or float64)."""
        scores_BT2 = self.output(self.dropout(hidden_BTD))
        return scores_BT2 if scores_BT2.element_size() == 8 else scores_BT2.float()


@dataclasses.dataclass(frozen=True)
class SpanExtraction(Objective):
    """Mean cross-entropy of begin and end; `batch.targets` is 1 where an answer begins, 2 where it ends, 3 where both.

    A worked example: [CLS] who [SEP] it was she [SEP] with the answer "was she" has the target 1 at "was", 2 at "she"
    and none elsewhere; the same text without an answer has 3 at [CLS]. Every example has exactly one begin and one end.
    """

    dropout: float = 0.0
    """dropout on what the linear layer reads; BERT has none here"""

    name: ClassVar[str] = "answering"
    # The softmax runs over all tokens of an example, not only over those that the answer has its ends at.
    reads_everywhere: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if not 0 <= self.dropout < 1:
            raise InputError(f"dropout is {self.dropout}: give a probability from 0 to below 1")

    def head(self, backbone: BackboneModel) -> AnsweringHead:
        """Build the head."""
        head = AnsweringHead(backbone.settings.hidden_size, self.dropout)
        backbone.settings.init.apply_(head)
        return head

    def scores(self, head: nn.Module, output: Output) -> Tensor:
        """Return the scores [B, T, 2] of every place as begin and as end."""
        return head(output.hidden)

    def after(self, head: nn.Module, backbone: BackboneModel, output: Output, batch: Batch) -> Terms:
        """Return the term over the examples."""
        scores_BT2 = self.scores(head, output)
        width = scores_BT2.shape[1]
        row_N, place_N = batch.target_at // width, batch.target_at % width
        doc_ids_NT = batch.written_doc_ids.index_select(0, row_N)
        other_NT = doc_ids_NT != doc_ids_NT.gather(1, place_N[:, None])
        # An example is a document of its row; there are at most two places for each, so a mask for each is small.
        log_NT2 = scores_BT2.index_select(0, row_N).masked_fill(other_NT[..., None], -torch.inf).log_softmax(1)
        log_N2 = log_NT2.gather(1, place_N[:, None, None].expand(-1, 1, 2))[:, 0]
        targets_N = batch.targets.flatten().index_select(0, batch.target_at)
        is_it_N2 = torch.stack([targets_N & BEGIN, targets_N & END], 1) > 0
        total = -log_N2.masked_fill(~is_it_N2, 0).sum() / 2
        return {self.name: Term(total, batch.num_examples)}

    def counts(self, batch: Batch) -> dict[str, int]:
        """Return how many examples there are."""
        return {self.name: batch.num_examples}

    def num_flops(self, head: nn.Module, backbone: BackboneModel, batch: Batch) -> float:
        """Return the floating-point operations of the head."""
        return 4.0 * batch.num_tokens * backbone.settings.hidden_size
