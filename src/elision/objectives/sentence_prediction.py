"""What the objectives over sentence pairs share: two-way cross-entropy on the pooled summary token."""

from typing import ClassVar

import torch.nn.functional as F
from torch import Tensor, nn

from elision.data.batch import Batch
from elision.model.backbone import BackboneModel, Output
from elision.objectives.objective import Judged, Objective, Term, Terms


class SentencePrediction(Objective):
    """An objective that answers yes (0) or no (1) for each pair; `label` says which question the labels must answer."""

    weight: float
    label: ClassVar[str]
    num_labels: ClassVar[int] = 2

    def head(self, backbone: BackboneModel) -> nn.Linear:
        """Build the classifier over the pooled state."""
        head = nn.Linear(backbone.settings.hidden_size, 2)
        backbone.settings.init.apply_(head)
        return head

    def after(self, head: nn.Module, backbone: BackboneModel, output: Output, batch: Batch) -> Terms:
        """Return the term over the examples."""
        total = F.cross_entropy(self._logits(head, backbone, output, batch), batch.labels, reduction="sum")
        return {self.name: Term(total, batch.num_examples, self.weight)}

    def judge(self, head: nn.Module, backbone: BackboneModel, output: Output, batch: Batch) -> dict[str, Judged]:
        """Return how often the likelier answer is right."""
        best_E = self._logits(head, backbone, output, batch).argmax(-1)
        return {self.name: Judged((best_E == batch.labels).sum(), batch.num_examples, batch.labels)}

    def _logits(self, head: nn.Module, backbone: BackboneModel, output: Output, batch: Batch) -> Tensor:
        summary_ED = output.hidden.flatten(0, 1).index_select(0, batch.summary_at)
        logits_EC = head(backbone.pool(summary_ED))
        return logits_EC.float() if logits_EC.element_size() < 4 else logits_EC

    def counts(self, batch: Batch) -> dict[str, int]:
        """Return how many examples there are."""
        return {self.name: batch.num_examples}

    def num_flops(self, head: nn.Module, backbone: BackboneModel, batch: Batch) -> float:
        """Return the floating-point operations of the pooler and the classifier."""
        width = backbone.settings.hidden_size
        return 2.0 * batch.num_examples * width * (width + 2)
