"""Classification of whole examples: which class, or which score, has this text or this pair of texts?

Devlin et al. 2019, section 4.1, and Radford et al. 2018, section 3.2: one linear layer over the state of the summary
token. E examples, D hidden size, C classes.
"""

import dataclasses
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from elision.data.batch import Batch
from elision.errors import InputError
from elision.model.backbone import BackboneModel, Output
from elision.objectives.objective import Objective, Term, Terms


class ClassificationHead(nn.Module):
    """Dropout and a linear layer; under it, in some families, a dense layer with an activation, in dropout too.

    Causal models have no bias in it, as in the published GPT-2 classifiers.
    """

    def __init__(self, hidden_size: int, num_outputs: int, dropout: float, bias: bool, activation: str = "none"):
        super().__init__()
        self.dropout = nn.Dropout(dropout)
        self.dense = nn.Linear(hidden_size, hidden_size) if activation != "none" else None
        self.activation = CLASSIFIER_ACTIVATIONS[activation]
        self.output = nn.Linear(hidden_size, num_outputs, bias=bias)

    def forward(self, pooled_ED: Tensor) -> Tensor:
        """Return the scores [E, C] in float32 (or float64)."""
        if self.dense is not None:
            pooled_ED = self.activation(self.dense(self.dropout(pooled_ED)))
        scores_EC = self.output(self.dropout(pooled_ED))
        return scores_EC if scores_EC.element_size() == 8 else scores_EC.float()


CLASSIFIER_ACTIVATIONS = {"tanh": torch.tanh, "gelu": F.gelu, "relu": F.relu, "none": None}


@dataclasses.dataclass(frozen=True)
class Classification(Objective):
    """Cross-entropy over the classes of each example, or squared error of one score, on the pooled summary token."""

    num_labels: int = 2
    """how many classes; 1 for a score"""
    regression: bool = False
    """predict a score instead of a class"""
    dropout: float = 0.1
    """dropout on what the linear layer reads"""

    name: ClassVar[str] = "classification"

    def __post_init__(self) -> None:
        if self.regression and self.num_labels != 1:
            raise InputError(f"num_labels is {self.num_labels}: a regression predicts one score, set it to 1")
        if not self.regression and self.num_labels < 2:
            raise InputError(f"num_labels is {self.num_labels}: a classification needs at least 2 classes")
        if not 0 <= self.dropout < 1:
            raise InputError(f"dropout is {self.dropout}: give a probability from 0 to below 1")

    def head(self, backbone: BackboneModel) -> ClassificationHead:
        """Build the head."""
        settings = backbone.settings
        causal = settings.visibility == "causal"
        # A pooler has the place of the dense layer.
        activation = "none" if causal or backbone.pooler is not None else settings.classifier
        head = ClassificationHead(settings.hidden_size, self.num_labels, self.dropout, not causal, activation)
        settings.init.apply_(head)
        return head

    def scores(self, head: nn.Module, backbone: BackboneModel, output: Output, batch: Batch) -> Tensor:
        """Return the scores [E, C] of the examples, in the order of `batch.summary_at`; logits, or one score each."""
        summary_ED = output.hidden.flatten(0, 1).index_select(0, batch.summary_at)
        return head(backbone.pool(summary_ED))

    def after(self, head: nn.Module, backbone: BackboneModel, output: Output, batch: Batch) -> Terms:
        """Return the term over the examples."""
        scores_EC = self.scores(head, backbone, output, batch)
        if self.regression:
            total = F.mse_loss(scores_EC[:, 0], batch.labels.to(scores_EC.dtype), reduction="sum")
        else:
            total = F.cross_entropy(scores_EC, batch.labels, reduction="sum")
        return {self.name: Term(total, batch.num_examples)}

    def counts(self, batch: Batch) -> dict[str, int]:
        """Return how many examples there are."""
        return {self.name: batch.num_examples}

    def num_flops(self, head: nn.Module, backbone: BackboneModel, batch: Batch) -> float:
        """Return the floating-point operations of the pooler and the classifier."""
        width = backbone.settings.hidden_size
        pooled = width if backbone.pooler is not None or head.dense is not None else 0
        return 2.0 * batch.num_examples * width * (pooled + self.num_labels)
