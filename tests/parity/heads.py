"""Models with a head for fine-tuning, ours and transformers', by way of a family's key map."""

from types import ModuleType

import torch
from torch import Tensor, nn

from elision.data.batch import Batch
from elision.model.backbones import Backbone
from elision.model.language_model import LanguageModel
from elision.objectives import Classification, SpanExtraction, TokenClassification
from elision.objectives.objective import Objective
from tests.parity import reference

OBJECTIVES = {
    "classification": Classification(num_labels=3),
    "tagging": TokenClassification(num_labels=3),
    "answering": SpanExtraction(),
}


def batch_of(ids: Tensor, real: Tensor, types: Tensor | None) -> Batch:
    """Return rows of text that are judged whole and place by place; padding where `real` is False."""
    rows, length = ids.shape
    return Batch(
        inputs=ids,
        positions=torch.arange(length).expand(rows, length),
        doc_ids=real.long(),
        targets=torch.where(real, 0, -100),
        target_at=real.flatten().nonzero()[:, 0],
        summary_at=torch.arange(rows) * length,
        type_ids=types,
        labels=torch.zeros(rows, dtype=torch.long),
        num_targets=int(real.sum()),
        num_examples=rows,
        num_tokens=int(real.sum()),
    )


@torch.no_grad()
def scores(model: LanguageModel, batch: Batch) -> Tensor:
    """Return what the head of a fine-tuned model says: [E, C], [N, C] at the real places, or [B, T, 2]."""
    (objective,) = model.objectives
    head, output = model.eval().heads[objective.name], model.backbone(batch)
    if objective.name == "classification":
        return objective.scores(head, model.backbone, output, batch)
    if objective.name == "tagging":
        return objective.scores(head, output, batch)
    return head(output.hidden)


def build(backbone: Backbone, name: str) -> LanguageModel:
    """Return a scrambled model with the named head."""
    objective: Objective = OBJECTIVES[name]
    return reference.scrambled(LanguageModel(backbone, (objective,), reference.VOCAB_SIZE))


def loaded_from(theirs: nn.Module, family: ModuleType, backbone: Backbone, name: str) -> LanguageModel:
    """Return our model with the weights of theirs, through the key map."""
    model = LanguageModel(backbone, (OBJECTIVES[name],), reference.VOCAB_SIZE)
    shapes = {key: value.shape for key, value in model.state_dict().items()}
    table = family.key_map(backbone, (name,))
    state = family.normalise(dict(theirs.state_dict()), "the model")
    model.load_state_dict(table.to_ours(state, shapes, "the model"))
    return model


def load_into(theirs: nn.Module, family: ModuleType, model: LanguageModel) -> None:
    """Put our weights into their model through the key map; every tensor must find its place."""
    backbone = model.backbone.settings
    tensors = family.key_map(backbone, tuple(model.heads)).to_theirs(dict(model.state_dict()))
    family.complete(tensors, backbone)
    theirs.load_state_dict(tensors)


def agree(theirs: nn.Module, model: LanguageModel, name: str, segments: bool) -> None:
    """Assert that both say the same of padded text, at every real place."""
    ids = reference.token_ids(3, 11)
    real = torch.ones(3, 11, dtype=torch.bool)
    real[1, 7:] = False
    types = (torch.arange(11) > 4).long().expand(3, 11) if segments else None
    given = {"attention_mask": real.long()} | ({"token_type_ids": types} if segments else {})
    with torch.no_grad():
        output = theirs.eval()(ids, **given)
    ours = scores(model, batch_of(ids, real, types))
    if name == "classification":
        reference.assert_close(ours, output.logits)
    elif name == "tagging":
        reference.assert_close(ours, output.logits[real])
    else:
        reference.assert_close(ours[real], torch.stack([output.start_logits, output.end_logits], -1)[real])
