"""A teacher: a trained encoder that is asked and never trained.

It lies outside the student's module, so that it is neither counted nor saved with the student's parameters.

B rows, T tokens, N places, D hidden size, V vocabulary.
"""

import dataclasses
from pathlib import Path

import torch
from torch import Tensor, nn

import elision
from elision.data.batch import Batch
from elision.errors import InputError
from elision.model.backbone import BackboneModel, Output
from elision.objectives.token_prediction import TokenPrediction


class Teacher:
    """A model read from a run, a checkpoint or a Hugging Face folder. Copies of a student have the same teacher."""

    def __init__(self, path: Path):
        """Load the model. Raises: InputError when there is none, or it does not predict left-out tokens."""
        self.path = path
        loaded = elision.load(path)
        self.model, self._tokenizer = loaded.model.requires_grad_(False), loaded.tokenizer
        objective = self.model.token_objective
        if objective is None or objective.needs != "masked":
            raise InputError(
                f"the teacher {path} ({loaded.recipe.name}) does not restore masked tokens, so it has nothing to say to "
                f"the student: name a model that was pretrained with a head for them"
            )
        if type(objective).predict is not TokenPrediction.predict:
            raise InputError(
                f"the teacher {path} ({loaded.recipe.name}) predicts tokens by a network beside the one that is its "
                f"result: name a model whose own states predict them"
            )
        self._objective = objective

    def __deepcopy__(self, memo: dict) -> "Teacher":
        return self

    def check_symbols(self, symbols: list[str]) -> None:
        """Raise InputError unless every id stands for the same symbol as the student's."""
        mine = self._tokenizer.symbols()
        if mine == symbols:
            return
        where = next((i for i, (a, b) in enumerate(zip(mine, symbols)) if a != b), min(len(mine), len(symbols)))
        shown = [repr(names[where]) if where < len(names) else "nothing" for names in (mine, symbols)]
        raise InputError(
            f"the teacher {self.path} has another vocabulary ({len(mine)} symbols) than the student ({len(symbols)}): "
            f"{where} is {shown[0]} there and {shown[1]} here. Prepare the store with --tokenizer {self.path}"
        )

    @torch.no_grad()
    def states(self, batch: Batch, places_N: Tensor, like: Tensor) -> Output:
        """Return what the teacher makes of a batch, at places of the flattened B * T: hidden and prediction [N, D].

        like: a tensor of the student, whose device and type the teacher moves to.
        """
        if self.model.backbone.table.device != like.device or self.model.backbone.table.dtype != like.dtype:
            self.model.to(like.device, like.dtype)
        # What a backbone computes for predictions alone is computed at targets only.
        asked = dataclasses.replace(batch, target_at=places_N, num_targets=len(places_N), needed_at=None)
        output = self.model.backbone(asked)
        hidden, prediction = (
            states.flatten(0, 1).index_select(0, places_N) for states in (output.hidden, output.prediction)
        )
        return Output(hidden, prediction)

    @torch.no_grad()
    def scores(self, prediction_ND: Tensor, vocab_size: int) -> Tensor:
        """Return the scores [N, V] of every token of the student's vocabulary."""
        head = self.model.heads[self._objective.name]
        # The teacher's table may have more rows than there are symbols.
        return self._objective.logits(head, self.model.backbone, prediction_ND)[:, :vocab_size]

    def num_flops(self, batch: Batch, num_places: int) -> float:
        """Return the floating-point operations of a forward pass with predictions at `num_places`."""
        backbone = self.model.backbone
        body = backbone.settings.forward_flops(batch, needed_only=False)
        return body + 2.0 * num_places * backbone.settings.embedding_width * backbone.vocab_size

    def copy_into(self, student: BackboneModel, head: nn.Module, layers: tuple[int, ...]) -> None:
        """Begin the student with the teacher's tables, embedding norm, chosen layers and head for masked tokens.

        layers: the teacher's layer for each of the student's. What the student has no place for (segments, a pooler) is
        left out. Raises: InputError naming the first tensor that the teacher has not, or has in another shape.
        """
        theirs = self._state()
        taken: dict[str, Tensor] = {}
        for name, value in student.state_dict().items():
            source = name
            if name.startswith("blocks."):
                _, number, rest = name.split(".", 2)
                source = f"blocks.{layers[int(number)]}.{rest}"
            found = theirs.get(source)
            if found is not None and name.startswith("embeddings."):
                # A shorter position table, and a token table without rows beyond the symbols.
                found = found[: len(value)]
            if found is None or found.shape != value.shape:
                has = "no such tensor" if found is None else f"one of shape {tuple(found.shape)}"
                raise InputError(
                    f"the student cannot begin with layers of the teacher {self.path}: its {name} has shape "
                    f"{tuple(value.shape)}, the teacher has {has}. Choose the same widths, or begin with random weights: "
                    f"set copy_layers to False (and cosine_weight to 0 where the widths differ)"
                )
            taken[name] = found
        student.load_state_dict(taken)
        head_state = self.model.heads[self._objective.name].state_dict()
        head_state = {name: value[: len(head.bias)] if name == "bias" else value for name, value in head_state.items()}
        shapes = {name: value.shape for name, value in head.state_dict().items()}
        if {name: value.shape for name, value in head_state.items()} == shapes:
            head.load_state_dict(head_state)

    def _state(self) -> dict[str, Tensor]:
        """Return the tensors of the teacher's backbone; shared ones under the name of every layer that uses them."""
        state = dict(self.model.backbone.standalone_state())
        names = {name.split(".", 2)[2] for name in state if name.startswith("blocks.")}
        for layer in range(1, self.model.backbone.settings.num_layers):
            for name in names:
                if f"blocks.{layer}.{name}" not in state and f"blocks.{layer - 1}.{name}" in state:
                    state[f"blocks.{layer}.{name}"] = state[f"blocks.{layer - 1}.{name}"]
        return state


def spread_layers(num_teacher_layers: int, num_student_layers: int) -> tuple[int, ...]:
    """Return which of the teacher's layers the student begins with: evenly spread, the first and the last among them.

    >>> spread_layers(12, 6)
    (0, 2, 4, 7, 9, 11)
    """
    if num_student_layers > num_teacher_layers:
        raise InputError(
            f"the student has {num_student_layers} layers, the teacher only {num_teacher_layers}: lower "
            f"backbone.num_layers, or set copy_layers to False"
        )
    last, steps = num_teacher_layers - 1, max(1, num_student_layers - 1)
    return tuple(round(layer * last / steps) for layer in range(num_student_layers))
