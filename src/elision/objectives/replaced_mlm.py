"""Masked language modelling over a text that a generator has filled in: ELECTRA's ablations that predict tokens.

Clark et al. 2020, section 3.4: "Replace MLM" restores the tokens that had been left out, reading samples instead of masks;
"All-Tokens MLM" says of every place which token stood there before.

B rows, T tokens, D hidden size, V vocabulary, N places that are predicted.
"""

import dataclasses
from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from elision.data.batch import Batch
from elision.data.example import NO_TARGET
from elision.errors import InputError
from elision.model.backbone import BackboneModel, Output
from elision.model.block import ACTIVATIONS
from elision.model.heads import CHUNK_NUMEL, MaskedHead
from elision.objectives.generator import GENERATOR_TERM, Generator, Replacing, tokens_at
from elision.objectives.objective import Judged, Term, Terms


@dataclasses.dataclass(frozen=True)
class ReplacedMLM(Replacing):
    """Cross-entropy of the token that stood at each place before the generator filled in what had been left out."""

    generator: Generator = Generator()
    """what fills in the tokens that were left out"""
    weight: float = 1.0
    """how much this term weighs in the loss, beside the generator's 1"""
    over: Literal["all", "masked"] = "all"
    """whether every place is predicted, or only those that had been left out"""
    copies: bool = True
    """with over="all": p(token) = c [token is what is read there] + (1 - c) softmax, where c comes from a sigmoid"""

    name: ClassVar[str] = "replaced_mlm"

    def __post_init__(self) -> None:
        if self.copies and self.over == "masked":
            raise InputError(
                "copies is on with over='masked', where what is read was drawn by the generator: set copies to False"
            )

    @property
    def reads_everywhere(self) -> bool:
        """Whether every token's state is read."""
        return self.over == "all"

    def head(self, backbone: BackboneModel) -> "ReplacedHead":
        """Build the generator, the head over the vocabulary and the one that says how much is copied."""
        return ReplacedHead(self, backbone)

    def after(self, head: nn.Module, backbone: BackboneModel, output: Output, batch: Batch) -> Terms:
        """Return the term over all tokens, or over those that had been left out."""
        hidden_ND, inputs_N, originals_N = self._asked(output, batch)
        if not self.copies:
            total = head.tokens.loss(hidden_ND, backbone.table, originals_N)
        else:
            total = -self._log_shares(head, backbone, hidden_ND, inputs_N, originals_N).sum()
        return {self.name: Term(total, len(originals_N), self.weight)}

    def judge(self, head: nn.Module, backbone: BackboneModel, output: Output, batch: Batch) -> dict[str, Judged]:
        """Return how often the likeliest token is right."""
        hidden_ND, inputs_N, originals_N = self._asked(output, batch)
        right = torch.zeros((), dtype=torch.long, device=inputs_N.device)
        step = max(1, CHUNK_NUMEL // backbone.vocab_size)
        for start in range(0, len(originals_N), step):
            part = slice(start, start + step)
            share_NV = head.tokens.logits(hidden_ND[part], backbone.table).float().softmax(-1)
            if head.copy is not None:
                copied_N1 = head.copy(hidden_ND[part]).float().sigmoid()
                share_NV = (share_NV * (1 - copied_N1)).scatter_add_(1, inputs_N[part, None], copied_N1)
            right += (share_NV.argmax(-1) == originals_N[part]).sum()
        return {self.name: Judged(right, len(originals_N))}

    def counts(self, batch: Batch) -> dict[str, int]:
        """Return how many tokens the generator restores, and how many the model predicts."""
        return {
            GENERATOR_TERM: batch.num_targets,
            self.name: batch.num_tokens if self.over == "all" else batch.num_targets,
        }

    def num_flops(self, head: nn.Module, backbone: BackboneModel, batch: Batch) -> float:
        """Return the floating-point operations of the generator and of the heads."""
        places, width = self.counts(batch)[self.name], backbone.settings.hidden_size
        return head.generator.num_flops(batch) + head.tokens.num_flops(places, width, backbone.vocab_size)

    def _asked(self, output: Output, batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
        """Return, for the places that are predicted, the state, what is read there and what stood there before."""
        places_N = batch.target_at if self.over == "masked" else tokens_at(batch)
        inputs_N, targets_N = (ids.flatten().index_select(0, places_N) for ids in (batch.inputs, batch.targets))
        originals_N = torch.where(targets_N == NO_TARGET, inputs_N, targets_N)
        return output.prediction.flatten(0, 1).index_select(0, places_N), inputs_N, originals_N

    def _log_shares(
        self, head: nn.Module, backbone: BackboneModel, hidden_ND: Tensor, inputs_N: Tensor, originals_N: Tensor
    ) -> Tensor:
        """Return the log probability [N] of what stood there, copied or predicted."""
        score_N = head.copy(hidden_ND)[:, 0]
        score_N = score_N if score_N.element_size() == 8 else score_N.float()
        predicted_N = F.logsigmoid(-score_N) - cross_entropies(head.tokens, hidden_ND, backbone.table, originals_N)
        return torch.where(inputs_N == originals_N, torch.logaddexp(F.logsigmoid(score_N), predicted_N), predicted_N)


class ReplacedHead(nn.Module):
    """The generator, BERT's head over the vocabulary, and one logit for how much of what is read is copied."""

    def __init__(self, settings: ReplacedMLM, backbone: BackboneModel):
        super().__init__()
        width = backbone.settings.hidden_size
        self.generator = settings.generator.build(backbone)
        self.tokens = MaskedHead(
            backbone.vocab_size,
            width,
            backbone.settings.embedding_width,
            ACTIVATIONS[backbone.settings.activation],
            backbone.settings.norm_eps,
        )
        backbone.settings.init.apply_(self.tokens)
        self.copy = nn.Linear(width, 1) if settings.copies else None
        if self.copy is not None:
            backbone.settings.init.apply_(self.copy)

    @property
    def blocks(self) -> nn.ModuleList:
        """What `torch.compile` compiles."""
        return self.generator.model.blocks


def cross_entropies(head: MaskedHead, hidden_ND: Tensor, table_VD: Tensor, targets_N: Tensor) -> Tensor:
    """Return the cross-entropy [N] of each place in nats; logits are formed again in the backward pass, not kept."""

    def part(hidden: Tensor, targets: Tensor) -> Tensor:
        logits = head.logits(hidden, table_VD)
        return F.cross_entropy(logits if logits.element_size() == 8 else logits.float(), targets, reduction="none")

    step = max(1, CHUNK_NUMEL // table_VD.shape[0])
    return torch.cat(
        [
            checkpoint(part, hidden, targets, use_reentrant=False, preserve_rng_state=False)
            for hidden, targets in zip(hidden_ND.split(step), targets_N.split(step), strict=True)
        ]
    )
