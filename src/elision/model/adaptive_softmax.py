"""Words by how frequent they are: wide vectors and a short way to the frequent ones, narrow and longer for the rest.

Grave et al. 2017, "Efficient softmax approximation for GPUs"; the input side as in Baevski & Auli 2019 and in the released
code of Dai et al. 2019. The vocabulary, most frequent first, is cut into clusters: the head, and tails of rarer words. The
softmax of the head is over its own words and one entry for each tail; that of a tail over its words, once one is in it:

    p(w) = p_head(w)   or, in tail c,   p_head(tail c) p_c(w)

B rows, T tokens, N places, D hidden size, V vocabulary, C clusters, n words in a cluster, E the width of their vectors.
"""

import itertools
from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from elision.data.batch import Batch
from elision.errors import InputError
from elision.model.heads import cross_entropy_sum


def check_cutoffs(cutoffs: Sequence[int]) -> None:
    """Raise InputError unless the ids at which clusters begin are positive and ascend."""
    if any(cutoff < 1 for cutoff in cutoffs) or list(cutoffs) != sorted(set(cutoffs)):
        raise InputError(f"cutoffs is {tuple(cutoffs)}: give the ids at which rarer words begin, above 0 and ascending")


def cluster_sizes(cutoffs: Sequence[int], vocab_size: int) -> list[int]:
    """Return how many words each cluster has; a vocabulary that ends before a cutoff has fewer clusters."""
    bounds = [0, *(cutoff for cutoff in cutoffs if cutoff < vocab_size), vocab_size]
    return [end - begin for begin, end in itertools.pairwise(bounds)]


def cluster_widths(width: int, divisor: int, num_clusters: int) -> list[int]:
    """Return the width of the vectors in each cluster: `divisor` times narrower from cluster to cluster."""
    return [max(1, width // divisor**cluster) for cluster in range(num_clusters)]


class ClusteredEmbeddings(nn.Module):
    """A token table for each cluster, and projections that bring the vectors of all to one width."""

    # The number of the language of text that does not say its own: there are no embeddings of languages here.
    language = 0

    def __init__(self, sizes: Sequence[int], widths: Sequence[int], hidden_size: int):
        super().__init__()
        self.sizes = tuple(sizes)
        self.tables = nn.ModuleList(nn.Embedding(size, width) for size, width in zip(sizes, widths))
        self.projections = nn.ModuleList(nn.Linear(width, hidden_size, bias=False) for width in widths)

    def forward(self, batch: Batch) -> Tensor:
        """Return the embedded places of a batch, [B, T, D]."""
        return self.embed(batch.inputs)

    def embed(self, inputs_BT: Tensor) -> Tensor:
        """Return the vectors of ids, [B, T, D].

        Every place goes through every cluster, as some word of it where it is none of its own, and takes the vector of its
        own: which places those are is not asked, since a device would have to be waited for, and narrow tables cost little.
        """
        total_BTD, begin = None, 0
        for size, table, projection in zip(self.sizes, self.tables, self.projections):
            local_BT = (inputs_BT - begin).clamp(0, size - 1)
            inside_BT1 = ((inputs_BT >= begin) & (inputs_BT < begin + size))[..., None]
            part_BTD = projection(table(local_BT)).masked_fill(~inside_BT1, 0.0)
            total_BTD = part_BTD if total_BTD is None else total_BTD + part_BTD
            begin += size
        return total_BTD


class Cluster(NamedTuple):
    """What scores the words of one cluster: a table [n, E], and a projection [D, E] of states to its width or None."""

    table: Tensor
    projection: Tensor | None

    def states(self, hidden: Tensor) -> Tensor:
        """Return states [..., D] at the width of the table."""
        return hidden if self.projection is None else hidden @ self.projection


class AdaptiveSoftmax(nn.Module):
    """The scores of words by cluster, each table with a bias, and of the tails in the head.

    Holds what is not tied: `tables` of its own if `own_tables`, and the projections of the clusters in `own_projections`.
    """

    def __init__(
        self,
        sizes: Sequence[int],
        widths: Sequence[int],
        hidden_size: int,
        *,
        own_tables: bool = False,
        own_projections: Sequence[int] = (),
    ):
        super().__init__()
        self.sizes = tuple(sizes)
        # Row c - 1 scores tail c, in their order (the released PyTorch code counts them from the last).
        self.tails = nn.Linear(widths[0], len(sizes) - 1) if len(sizes) > 1 else None
        self.bias = nn.Parameter(torch.zeros(sum(sizes)))
        self.tables = nn.ModuleList(nn.Embedding(size, width) for size, width in zip(sizes, widths) if own_tables)
        self.projections = nn.ModuleDict(
            {str(cluster): nn.Linear(widths[cluster], hidden_size, bias=False) for cluster in own_projections}
        )

    def clusters(
        self, tied_tables: Sequence[Tensor] | None, tied_projections: Sequence[Tensor] | None
    ) -> list[Cluster]:
        """Return the clusters, from what is tied and what is this module's own."""
        tables = [table.weight for table in self.tables] if tied_tables is None else tied_tables
        found = []
        for cluster, table in enumerate(tables):
            own = self.projections[str(cluster)].weight if str(cluster) in self.projections else None
            tied = tied_projections[cluster] if tied_projections is not None else None
            found.append(Cluster(table, tied if own is None else own))
        return found

    def loss(self, hidden_ND: Tensor, clusters: Sequence[Cluster], targets_N: Tensor) -> Tensor:
        """Return the summed cross-entropy in nats, a float32 (or float64) scalar; a tail only works for its own words."""
        table, bias = self._head(clusters)
        states = clusters[0].states(hidden_ND)
        if self.tails is None:
            return cross_entropy_sum(states, table, bias, targets_N)
        cluster_N = self._cluster_of(targets_N)
        total = cross_entropy_sum(
            states, table, bias, torch.where(cluster_N == 0, targets_N, self.sizes[0] + cluster_N - 1)
        )
        # One wait for the device, for all clusters: how many words of each there are decides over shapes.
        counts = torch.bincount(cluster_N, minlength=len(self.sizes)).tolist()
        by_cluster = cluster_N.argsort(stable=True).split(counts)
        begin = self.sizes[0]
        # A tail without a target is asked, too: then all its parameters have a gradient on every rank.
        for cluster, own_N, bias in zip(clusters[1:], by_cluster[1:], self._tail_biases()):
            states = cluster.states(hidden_ND.index_select(0, own_N))
            targets = targets_N.index_select(0, own_N) - begin
            total = total + cross_entropy_sum(states, cluster.table, bias, targets)
            begin += len(bias)
        return total

    def log_probabilities(self, hidden: Tensor, clusters: Sequence[Cluster]) -> Tensor:
        """Return the log-probability of every word, [..., V] for [..., D], in float32 or wider."""
        table, bias = self._head(clusters)
        head = _log_softmax(F.linear(clusters[0].states(hidden), table, bias))
        parts = [head[..., : self.sizes[0]]]
        for number, (cluster, bias) in enumerate(zip(clusters[1:], self._tail_biases())):
            inside = _log_softmax(F.linear(cluster.states(hidden), cluster.table, bias))
            parts.append(head[..., self.sizes[0] + number, None] + inside)
        return torch.cat(parts, -1)

    def num_flops(self, targets_N: Tensor, hidden_size: int, clusters: Sequence[Cluster]) -> float:
        """Return the floating-point operations of the forward pass of `loss`."""
        counts = torch.bincount(self._cluster_of(targets_N), minlength=len(self.sizes)).tolist()
        counts[0] = len(targets_N)
        total = 0.0
        for number, (cluster, count) in enumerate(zip(clusters, counts)):
            size, width = cluster.table.shape
            total += count * width * (size + (len(self.sizes) - 1 if number == 0 else 0))
            total += 0 if cluster.projection is None else count * width * hidden_size
        return 2.0 * total

    def _head(self, clusters: Sequence[Cluster]) -> tuple[Tensor, Tensor]:
        """Return the table and the bias of the head, those of the tails behind them."""
        bias = self.bias[: self.sizes[0]]
        if self.tails is None:
            return clusters[0].table, bias
        return torch.cat([clusters[0].table, self.tails.weight]), torch.cat([bias, self.tails.bias])

    def _tail_biases(self) -> tuple[Tensor, ...]:
        return self.bias.split(self.sizes)[1:]

    def _cluster_of(self, targets_N: Tensor) -> Tensor:
        ends = torch.tensor(self.sizes[:-1], device=targets_N.device).cumsum(0)
        return torch.bucketize(targets_N, ends, right=True)


def _log_softmax(logits: Tensor) -> Tensor:
    return torch.log_softmax(logits, -1, dtype=torch.promote_types(logits.dtype, torch.float32))
