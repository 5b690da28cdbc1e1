"""Tiny models of `transformers` with random weights, and checkpoints of ours, for comparing one with the other."""

from pathlib import Path

import torch
import transformers
from torch import Tensor

from elision.model.language_model import LanguageModel
from elision.recipe import Recipe
from elision.text.tokenizer import Tokenizer
from elision.train.checkpoint import write_weights

transformers.logging.set_verbosity_error()
transformers.logging.disable_progress_bar()

VOCAB_SIZE = 300


def bert(kind: type, dtype: torch.dtype = torch.float32, **settings: object) -> transformers.PreTrainedModel:
    """Return a BERT of the given class: 2 layers, width 32, 20 positions."""
    config = {
        "vocab_size": VOCAB_SIZE,
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "intermediate_size": 48,
        "max_position_embeddings": 20,
    }
    return scrambled(kind(transformers.BertConfig(**config | settings)), dtype)


def gpt2(kind: type, dtype: torch.dtype = torch.float32, **settings: object) -> transformers.PreTrainedModel:
    """Return a GPT-2 of the given class: 2 layers, width 32, 20 positions."""
    config = {
        "vocab_size": VOCAB_SIZE,
        "n_embd": 32,
        "n_layer": 2,
        "n_head": 4,
        "n_positions": 20,
        "bos_token_id": 0,
        "eos_token_id": 0,
    }
    return scrambled(kind(transformers.GPT2Config(**config | settings)), dtype)


def scrambled(model: torch.nn.Module, dtype: torch.dtype = torch.float32) -> torch.nn.Module:
    """Add noise to every tensor, so that no bias is 0 and no norm is 1, and none can be mistaken for another."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.2 * torch.randn(parameter.shape, generator=generator))
    return model.to(dtype).eval()


def token_ids(rows: int, length: int, seed: int = 0) -> Tensor:
    """Return random ids that are no special symbols, and that every tokenizer of the tests has."""
    return torch.randint(6, 200, (rows, length), generator=torch.Generator().manual_seed(seed))


def save_checkpoint(folder: Path, recipe: Recipe, tokenizer: Tokenizer) -> LanguageModel:
    """Write a checkpoint of a scrambled model of `recipe`; returns the model."""
    folder.mkdir(parents=True)
    model = scrambled(LanguageModel(recipe.backbone, recipe.objectives, tokenizer.vocabulary.size))
    recipe.save(folder / "recipe.json")
    tokenizer.save(folder / "tokenizer")
    write_weights(folder, model)
    return model


def assert_close(ours: Tensor, theirs: Tensor) -> None:
    """Assert that two results are equal up to rounding: 1e-5 in float32, 1e-10 in float64."""
    assert ours.dtype == theirs.dtype and ours.shape == theirs.shape, (ours.dtype, theirs.dtype, ours.shape)
    tolerance = {torch.float32: 1e-5, torch.float64: 1e-10}[ours.dtype]
    scale = max(1.0, float(theirs.abs().max()))
    difference = float((ours - theirs).abs().max())
    assert difference <= tolerance * scale, f"differ by {difference:.2e} at a scale of {scale:.2e}"
