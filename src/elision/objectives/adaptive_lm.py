"""Causal language modelling over a vocabulary that is cut by frequency: Transformer-XL's loss on words.

N places, D hidden size, V vocabulary.
"""

import dataclasses
from collections.abc import Sequence
from typing import ClassVar, Literal

from torch import Tensor, nn

from elision.data.batch import Batch
from elision.errors import InputError
from elision.model.adaptive_softmax import (
    AdaptiveSoftmax,
    Cluster,
    ClusteredEmbeddings,
    check_cutoffs,
    cluster_sizes,
    cluster_widths,
)
from elision.model.backbone import BackboneModel, Output
from elision.objectives.objective import Term, Terms
from elision.objectives.token_prediction import TokenPrediction


@dataclasses.dataclass(frozen=True)
class AdaptiveLM(TokenPrediction):
    """Cross-entropy of the next token at every place by an adaptive softmax (Grave et al. 2017): exact, but rare tokens
    cost less.

    Ids must go from frequent to rare, as those of `Words` do. The scores that it gives are log-probabilities.
    """

    weight: float = 1.0
    """how much this term weighs in the loss"""
    cutoffs: tuple[int, ...] | None = None
    """ids at which rarer clusters begin; None = as the backbone's embeddings are cut (backbone.cutoffs)"""
    tied: bool = True
    """score tokens by the vectors that they are read by; False = by tables of their own"""
    tied_projections: Literal["none", "tails", "all"] = "none"
    """which clusters also share with the embeddings the projection between their width and that of the states"""

    name: ClassVar[str] = "clm"
    needs: ClassVar[str] = "next"
    visibility: ClassVar[str] = "causal"

    def __post_init__(self) -> None:
        check_cutoffs(self.cutoffs or ())

    def head(self, backbone: BackboneModel) -> AdaptiveSoftmax:
        """Build what is not tied. Raises: InputError when the embeddings have not what is to be tied."""
        settings = backbone.settings
        theirs = getattr(settings, "cutoffs", None)
        cutoffs = self.cutoffs if self.cutoffs is not None else theirs
        if cutoffs is None:
            raise InputError(
                f"the embeddings of {type(settings).__name__} are not cut into clusters: say where with cutoffs of AdaptiveLM"
            )
        clustered = isinstance(backbone.embeddings, ClusteredEmbeddings)
        if clustered and self.tied and cutoffs != theirs:
            raise InputError(
                f"cutoffs of AdaptiveLM is {cutoffs}, but its tables are tied to embeddings with backbone.cutoffs {theirs}: "
                f"set one of them to the other, or tied to False"
            )
        sizes = cluster_sizes(cutoffs, backbone.vocab_size)
        divisor = getattr(settings, "embedding_divisor", 1)
        widths = cluster_widths(settings.embedding_width, divisor, len(sizes))
        projected = clustered or settings.embedding_width != settings.hidden_size
        if self.tied_projections != "none" and not projected:
            raise InputError(
                f"tied_projections is {self.tied_projections!r}, but embeddings of width {settings.embedding_width} under "
                f"states of the same width have no projections: set it to 'none'"
            )
        own = range(len(sizes)) if projected else ()
        if self.tied_projections != "none":
            self._tied_projections(backbone, len(sizes))
            own = own[:1] if self.tied_projections == "tails" else ()
        head = AdaptiveSoftmax(
            sizes, widths, settings.hidden_size, own_tables=not self.tied, own_projections=tuple(own)
        )
        settings.init.apply_(head)
        return head

    def after(self, head: nn.Module, backbone: BackboneModel, output: Output, batch: Batch) -> Terms:
        """Return the term over the places that have a target."""
        hidden_ND, targets_N = output.prediction.flatten(0, 1), batch.targets.flatten()
        if batch.num_targets < targets_N.shape[0]:
            hidden_ND = hidden_ND.index_select(0, batch.target_at)
            targets_N = targets_N.index_select(0, batch.target_at)
        total = head.loss(hidden_ND, self._clusters(head, backbone), targets_N)
        return {self.name: Term(total, batch.num_targets, self.weight)}

    def logits(self, head: nn.Module, backbone: BackboneModel, hidden: Tensor) -> Tensor:
        """Return the log-probabilities [..., V] of every token for states [..., D]."""
        return head.log_probabilities(hidden, self._clusters(head, backbone))

    def num_flops(self, head: nn.Module, backbone: BackboneModel, batch: Batch) -> float:
        """Return the floating-point operations of the head's forward pass, which depend on how rare the targets are."""
        targets_N = batch.targets.flatten().index_select(0, batch.target_at)
        return head.num_flops(targets_N, backbone.settings.hidden_size, self._clusters(head, backbone))

    def _clusters(self, head: AdaptiveSoftmax, backbone: BackboneModel) -> list[Cluster]:
        tables = projections = None
        if self.tied:
            clustered = isinstance(backbone.embeddings, ClusteredEmbeddings)
            # One split and not a slice for each: their gradients are then joined, not added up in tables of full size.
            tables = (
                [table.weight for table in backbone.embeddings.tables]
                if clustered
                else backbone.table.split(head.sizes)
            )
        if self.tied_projections != "none":
            projections = self._tied_projections(backbone, len(head.sizes))
        return head.clusters(tables, projections)

    def _tied_projections(self, backbone: BackboneModel, num_clusters: int) -> Sequence[Tensor]:
        """Return the projections [D, E] of the embeddings, one for each cluster."""
        if isinstance(backbone.embeddings, ClusteredEmbeddings):
            return [projection.weight for projection in backbone.embeddings.projections]
        return [backbone.project.weight] * num_clusters
