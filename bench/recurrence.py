"""Transformer-XL's training step beside a plain one of the same equations.

python -m bench.recurrence

The plain one is written as the paper's appendix B reads: scores of all queries and distances at once, shifted by padding and
reshaping, one softmax over all keys, PyTorch's dropout, logits of all places. Both carry a memory, clip and update with the same
optimiser, on bytes drawn at random. One thread, float32; seconds are those of the processor, not of the clock, and they take
turns, so that a busy machine slows both. The lower quartile of each is told.
"""

import dataclasses
import math
import time

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from elision.data.batch import Batch
from elision.model.language_model import LanguageModel
from elision.model.relative import distance_table
from elision.model.transformer_xl import TransformerXL
from elision.objectives import CausalLM

ROUNDS, VOCAB_SIZE = 7, 257
SIZES = (
    ("4 x 128, 16 rows of 128, memory 128", 16, TransformerXL(4, 128, 2, 512, memory_length=128)),
    ("4 x 256, 8 rows of 256, memory 256", 8, TransformerXL(4, 256, 4, 1024, memory_length=256)),
    ("2 x 512, 2 rows of 512, memory 512 (as enwik8-base)", 2, TransformerXL(2, 512, 8, 2048, memory_length=512)),
)


class PlainLayer(nn.Module):
    """A block with all its scores at once."""

    def __init__(self, settings: TransformerXL):
        super().__init__()
        width, self.heads = settings.hidden_size, settings.num_heads
        self.projections = nn.Linear(width, 3 * width, bias=False)
        self.distance = nn.Linear(width, width, bias=False)
        self.output = nn.Linear(width, width, bias=False)
        self.feedforward = nn.Sequential(
            nn.Linear(width, settings.feedforward_size),
            nn.ReLU(),
            nn.Dropout(settings.dropout),
            nn.Linear(settings.feedforward_size, width),
            nn.Dropout(settings.dropout),
        )
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(2))
        self.dropout, self.attention_dropout = nn.Dropout(settings.dropout), nn.Dropout(settings.attention_dropout)

    def forward(self, hidden: Tensor, memory: Tensor, distances: Tensor, u: Tensor, v: Tensor, hides: Tensor) -> Tensor:
        """Return [B, T, D]."""
        rows, length, width = hidden.shape
        query, key, value = self.projections(torch.cat([memory, hidden], 1)).chunk(3, -1)
        query = query[:, -length:].view(rows, length, self.heads, -1)
        key, value = (each.view(rows, -1, self.heads, query.shape[-1]) for each in (key, value))
        between = self.distance(distances).view(-1, self.heads, query.shape[-1])
        content = torch.einsum("bihd,bjhd->bhij", query + u, key)
        position = torch.einsum("bihd,jhd->bhij", query + v, between)
        padded = torch.cat([position.new_zeros(*position.shape[:3], 1), position], -1)
        shifted = padded.view(rows, self.heads, -1, length)[:, :, 1:].reshape(position.shape)
        score = ((content + shifted) / math.sqrt(query.shape[-1])).masked_fill(hides, -1e30)
        weight = self.attention_dropout(torch.softmax(score, -1))
        mixed = torch.einsum("bhij,bjhd->bihd", weight, value).reshape(rows, length, width)
        hidden = self.norms[0](hidden + self.dropout(self.output(mixed)))
        return self.norms[1](hidden + self.feedforward(hidden))


class Plain(nn.Module):
    """The model over such layers."""

    def __init__(self, settings: TransformerXL):
        super().__init__()
        self.settings = settings
        self.tokens = nn.Embedding(VOCAB_SIZE, settings.hidden_size)
        nn.init.normal_(self.tokens.weight, std=0.02)
        self.bias = nn.Parameter(torch.zeros(VOCAB_SIZE))
        self.u, self.v = (
            nn.Parameter(torch.zeros(settings.num_heads, settings.hidden_size // settings.num_heads)) for _ in range(2)
        )
        self.layers = nn.ModuleList(PlainLayer(settings) for _ in range(settings.num_layers))
        self.dropout = nn.Dropout(settings.dropout)

    def forward(self, batch: Batch, memories: list[Tensor] | None) -> tuple[Tensor, list[Tensor]]:
        """Return the mean loss and what each layer read."""
        width, length = self.settings.hidden_size, batch.inputs.shape[1]
        hidden = self.dropout(self.tokens(batch.inputs) * math.sqrt(width))
        if memories is None:
            memories = [hidden.new_zeros(len(hidden), 0, width)] * len(self.layers)
        num_keys = memories[0].shape[1] + length
        distances = self.dropout(distance_table(1, num_keys, width, None, hidden))
        hides = torch.ones(length, num_keys, dtype=torch.bool).triu(num_keys - length + 1)
        kept = []
        for layer, memory in zip(self.layers, memories):
            kept.append(torch.cat([memory, hidden.detach()], 1)[:, -self.settings.memory_length :])
            hidden = layer(hidden, memory, distances, self.u, self.v, hides)
        logits = F.linear(self.dropout(hidden), self.tokens.weight, self.bias)
        return F.cross_entropy(logits.flatten(0, 1), batch.targets.flatten()), kept


def batch_of(rows: int, length: int) -> Batch:
    """Return rows of random bytes."""
    ids = torch.randint(0, VOCAB_SIZE, (rows, length + 1))
    places = rows * length
    return Batch(
        inputs=ids[:, :-1].contiguous(),
        positions=torch.arange(length).expand(rows, -1),
        doc_ids=torch.ones(rows, length, dtype=torch.long),
        targets=ids[:, 1:].contiguous(),
        target_at=torch.arange(places),
        summary_at=torch.arange(rows) * length,
        num_targets=places,
        most_targets=length,
        num_examples=rows,
        num_tokens=places,
        whole_rows=True,
        contiguous=True,
    )


class Ours:
    """Steps of the library's model."""

    def __init__(self, settings: TransformerXL):
        self.model, self.carry = LanguageModel(settings, (CausalLM(bias=True),), VOCAB_SIZE), None

    def loss(self, batch: Batch) -> Tensor:
        """Run forward; returns the mean loss."""
        terms, self.carry = self.model(batch, self.carry)
        return terms["clm"].sum / terms["clm"].count


class Theirs:
    """Steps of the plain model."""

    def __init__(self, settings: TransformerXL):
        self.model, self.carry = Plain(settings), None

    def loss(self, batch: Batch) -> Tensor:
        """Run forward; returns the mean loss."""
        loss, self.carry = self.model(batch, self.carry)
        return loss


def main() -> None:
    """Measure and print a table."""
    torch.set_num_threads(1)
    print(f"{'size':54} {'dropout':>7} {'ours tok/s':>11} {'plain tok/s':>12} {'ours / plain':>13}")
    for name, rows, size in SIZES:
        for dropout, attention_dropout in ((0.0, 0.0), (0.1, 0.0), (0.15, 0.15)):
            settings = dataclasses.replace(size, dropout=dropout, attention_dropout=attention_dropout)
            length = settings.memory_length
            sides = {"ours": Ours(settings), "plain": Theirs(settings)}
            optimizers = {
                side: torch.optim.AdamW(each.model.parameters(), lr=1e-4, fused=True) for side, each in sides.items()
            }
            times: dict[str, list[float]] = {side: [] for side in sides}
            for _ in range(ROUNDS + 2):
                batch = batch_of(rows, length)
                for side, each in sides.items():
                    started = time.process_time()
                    each.loss(batch).backward()
                    nn.utils.clip_grad_norm_(each.model.parameters(), 0.25)
                    optimizers[side].step()
                    optimizers[side].zero_grad()
                    times[side].append(time.process_time() - started)
            # The first two fill the memory.
            ours, plain = (sorted(times[side][2:])[ROUNDS // 4] for side in ("ours", "plain"))
            print(
                f"{name:54} {dropout:>4}/{attention_dropout:<4} {rows * length / ours:9,.0f} {rows * length / plain:12,.0f} "
                f"{plain / ours:13.2f}",
                flush=True,
            )


if __name__ == "__main__":
    main()
