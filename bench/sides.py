"""One training step, twice: ours, and that of the usual script over `transformers`.

Both: forward under autocast, the model's own loss, backward, clipping at norm 1, AdamW. What `transformers` is handed is
what its collators make, and what it does is its default: its fastest attention, logits at every place.
"""

import dataclasses
import inspect

import torch

from bench import peers
from bench.data import Work
from bench.pairs import Side, resident_bytes
from elision.model.language_model import LanguageModel
from elision.recipe import Recipe
from elision.train.clipping import clip_, parts_of
from elision.train.metrics import matmul_peak
from elision.train.precision import autocast


@dataclasses.dataclass(frozen=True)
class Settings:
    """How a side computes."""

    recipe: Recipe
    precision: str
    device: str = "cpu"
    compiled: bool = False
    num_threads: int = 1
    fused_optimizer: bool = True
    """for the other side only: torch's fused AdamW instead of its default"""

    @property
    def dtype(self) -> torch.dtype:
        """What products are computed in; weights stay float32."""
        return torch.bfloat16 if self.precision == "bfloat16" else torch.float32


def ours(settings: Settings, works: list[Work]) -> Side:
    """Build our side."""
    return Ours(settings, works)


def theirs(settings: Settings, works: list[Work]) -> Side:
    """Build the side of `transformers`."""
    return Theirs(settings, works)


class _Timed:
    """What both sides share: the device, the turn of the batches, and what is said at the end."""

    def __init__(self, settings: Settings, num_works: int):
        torch.set_num_threads(settings.num_threads)
        torch.manual_seed(0)
        # Gradients of an untrained model can be too small to be normal numbers, which some initialisations of the other side
        # meet and which cost a CPU several times as long; in training they pass.
        torch.set_flush_denormal(True)
        self.settings, self.device = settings, torch.device(settings.device)
        self._turn, self._num_works, self._built_bytes = 0, num_works, 0

    def _next(self) -> int:
        self._turn += 1
        return (self._turn - 1) % self._num_works

    def _built(self) -> None:
        self._built_bytes = 0 if self.device.type == "cuda" else resident_bytes(peak=False)

    def _wait(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)

    def facts(self) -> dict[str, float]:
        """Return peak memory (of the device on a GPU, else of the process) and the measured matmul peak."""
        on_gpu = self.device.type == "cuda"
        peak = torch.cuda.max_memory_allocated(self.device) if on_gpu else resident_bytes(peak=True)
        return {
            "peak_bytes": float(peak),
            "built_bytes": float(self._built_bytes),
            "matmul_peak": matmul_peak(self.device, self.settings.dtype),
        }


class Ours(_Timed):
    """`LanguageModel` and the optimiser of the recipe, as the training loop drives them."""

    def __init__(self, settings: Settings, works: list[Work]):
        super().__init__(settings, len(works))
        recipe = settings.recipe
        self.batches = [work.ours.to(self.device) for work in works]
        self.model = LanguageModel(recipe.backbone, recipe.objectives, recipe.tokenizer.vocab_size).to(self.device)
        self.model.train()
        self.carry: dict[str, torch.Tensor] | None = None
        self.parts = parts_of(self.model, recipe.train.optimizer.clip_apart)
        self.optimizer = recipe.train.optimizer.build(self.model)
        self.forward = torch.compile(self.model) if settings.compiled else self.model
        self._built()

    def step(self) -> None:
        """Do one update."""
        batch, optimizer = self.batches[self._next()], self.settings.recipe.train.optimizer
        with autocast(self.device, self.settings.dtype):
            terms, self.carry = self.forward(batch, self.carry)
        loss = sum(term.sum * (term.weight / max(1, term.count)) for term in terms.values())
        loss.backward()
        clip_(self.parts, optimizer.clip_norm)
        optimizer.prepare(self.optimizer, self._turn, 1e-4)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self._wait()

    def facts(self) -> dict[str, float]:
        """Return also the useful floating-point operations and the tokens of a step, on average."""
        count = len(self.batches)
        return {
            **super().facts(),
            "flops": sum(self.model.num_flops(batch) for batch in self.batches) / count,
            "tokens": sum(batch.num_tokens for batch in self.batches) / count,
        }


class Theirs(_Timed):
    """The model of `transformers` that computes the same, and torch's AdamW."""

    def __init__(self, settings: Settings, works: list[Work]):
        super().__init__(settings, len(works))
        peer = peers.build(settings.recipe)
        self.model = peer.module.to(self.device).train()
        accepted = inspect.signature(self.model.forward).parameters
        takes_all = any(each.kind is inspect.Parameter.VAR_KEYWORD for each in accepted.values())
        self.batches = [
            {
                name: value.to(self.device)
                for name, value in peer.arguments(work.padded).items()
                if name in accepted or (takes_all and name == "token_type_ids")
            }
            for work in works
        ]
        fused = True if settings.fused_optimizer else None
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=1e-4, weight_decay=0.01, fused=fused)
        self.forward = torch.compile(self.model) if settings.compiled else self.model
        self._built()

    def step(self) -> None:
        """Do one update."""
        with autocast(self.device, self.settings.dtype):
            loss = self.forward(**self.batches[self._next()]).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self._wait()
