"""What a fine-tuned model needs besides its weights, so that transformers reads texts the way it was trained to."""

from typing import Any

import tokenizers
from tokenizers import processors
from torch import Tensor

from elision.model.backbones import Backbone
from elision.tasks.task import AnyTask
from elision.text.tokenizer import Tokenizer

PAD = "<|pad|>"


def write_config(task: AnyTask) -> dict[str, Any]:
    """Return what config.json says of the labels."""
    labels = task.labels or ("LABEL_0",)
    return {
        "id2label": {str(number): label for number, label in enumerate(labels)},
        "label2id": {label: number for number, label in enumerate(labels)},
        "problem_type": "regression" if task.type == "regression" else "single_label_classification",
    }


def frame(tokenizer: Tokenizer, backbone: Backbone) -> Tokenizer:
    """Return the tokenizer as the classifier was fed by it.

    Bidirectional: unchanged, it frames texts already. Causal: an end of text after each text, whose state is judged;
    and a symbol for padding of its own, because transformers looks for the last token that is no padding, which the end
    of text must be.
    """
    if backbone.visibility != "causal":
        return tokenizer
    raw = tokenizers.Tokenizer.from_str(tokenizer.raw.to_str())
    roles = dict(tokenizer.roles)
    if roles.get("pad", roles["eos"]) == roles["eos"]:
        raw.add_special_tokens([PAD])
        roles["pad"] = PAD
    end = roles["eos"]
    raw.post_processor = processors.TemplateProcessing(
        single=f"$A {end}", pair=f"$A {end} $B:1 {end}:1", special_tokens=[(end, raw.token_to_id(end))]
    )
    return Tokenizer(raw, roles, tokenizer.source)


def make_room(tensors: dict[str, Tensor], table: str, num_symbols: int) -> None:
    """Add, in place, rows of zeros to the token table for symbols that came with the frame."""
    rows, width = tensors[table].shape
    if num_symbols > rows:
        grown = tensors[table].new_zeros(num_symbols, width)
        grown[:rows] = tensors[table]
        tensors[table] = grown
