"""Transformer-XL and its adaptive softmax against the formulas, taken token by token, and against PyTorch's own."""

import dataclasses
import itertools
import math

import pytest
import torch
from torch import Tensor, nn

from elision.data.batch import Batch
from elision.model import recurrence
from elision.model.language_model import LanguageModel
from elision.model.transformer_xl import TransformerXL, TransformerXLModel
from elision.objectives import AdaptiveLM, CausalLM

pytestmark = pytest.mark.parity

VOCAB_SIZE, WIDTH, HEADS, CHANNELS = 30, 8, 2, 4
SETTINGS = TransformerXL(
    num_layers=2, hidden_size=WIDTH, num_heads=HEADS, feedforward_size=12, memory_length=5, dropout=0.0
)
CLUSTERED = {"cutoffs": (10, 18), "embedding_divisor": 2}


def module(settings: TransformerXL) -> TransformerXLModel:
    """Return a model in float64 whose every tensor has moved."""
    torch.manual_seed(0)
    model = settings.build(VOCAB_SIZE).double().eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.3 * torch.randn_like(parameter)
    return model


def batch_of(ids: Tensor, contiguous: bool = True) -> Batch:
    rows, length = ids.shape
    return Batch(
        inputs=ids,
        positions=torch.arange(length).expand(rows, -1),
        doc_ids=torch.ones_like(ids),
        targets=torch.full_like(ids, -100),
        target_at=torch.empty(0, dtype=torch.long),
        summary_at=torch.arange(rows) * length,
        num_examples=rows,
        num_tokens=ids.numel(),
        whole_rows=True,
        contiguous=contiguous,
    )


def some_ids(rows: int, length: int) -> Tensor:
    return torch.randint(0, VOCAB_SIZE, (rows, length), generator=torch.Generator().manual_seed(1))


def distance_vector(distance: int, clamp: int | None) -> Tensor:
    """R of a distance: sines of all frequencies, then cosines; in float32, as everybody computes them."""
    distance = distance if clamp is None else min(distance, clamp)
    angles = distance * (1 / torch.pow(10000.0, torch.arange(0, WIDTH, 2) / WIDTH))
    return torch.cat([angles.sin(), angles.cos()]).double()


def vector_of(model: TransformerXLModel, token: int) -> Tensor:
    """The embedding of one token, times the root of the width."""
    settings = model.settings
    if settings.embedding_divisor > 1:
        bounds = [0, *settings.cutoffs, VOCAB_SIZE]
        cluster = max(c for c in range(len(bounds) - 1) if bounds[c] <= token)
        embeddings = model.embeddings
        vector = embeddings.projections[cluster].weight @ embeddings.tables[cluster].weight[token - bounds[cluster]]
    else:
        vector = model.embeddings.tokens.weight[token]
        vector = vector if model.project is None else model.project.weight @ vector
    return vector * math.sqrt(WIDTH)


def by_formula(model: TransformerXLModel, segments: list[Tensor]) -> list[Tensor]:
    """Read one row of segments with loops over layers, queries, heads and keys; what is remembered is kept as a list."""
    settings = model.settings
    memories: list[list[Tensor]] = [[] for _ in model.blocks]
    outputs = []
    for segment in segments:
        states = [vector_of(model, int(token)) for token in segment]
        for layer, block in enumerate(model.blocks):
            attention = block.attention
            biases = model.biases[0 if settings.share_biases else layer]
            read = [*memories[layer], *states]
            past = len(memories[layer])
            w_key, w_value = attention.key_value.weight.split(WIDTH)
            above = []
            for i, state in enumerate(states):
                query = attention.query.weight @ state
                mixed = []
                for head in range(HEADS):
                    mine = slice(head * CHANNELS, (head + 1) * CHANNELS)
                    scores, values = [], []
                    for j in range(past + i + 1):
                        distance = past + i - j
                        if settings.same_length and distance >= settings.memory_length:
                            continue
                        key = (w_key @ read[j])[mine]
                        between = (attention.distance.weight @ distance_vector(distance, settings.clamp_distance))[mine]
                        content = (query[mine] + biases.content[head]) @ key
                        place = (query[mine] + biases.distance[head]) @ between
                        scores.append((content + place) / math.sqrt(CHANNELS))
                        values.append((w_value @ read[j])[mine])
                    weights = torch.softmax(torch.stack(scores), 0)
                    mixed.append(sum(weight * value for weight, value in zip(weights, values)))
                hidden = block.norm_after_attention(state + attention.output.weight @ torch.cat(mixed))
                inner = torch.relu(block.feedforward.inner(hidden))
                above.append(block.norm_after_feedforward(hidden + block.feedforward.output(inner)))
            # What this layer read, not what it made of it, and without a gradient.
            kept = [*memories[layer], *(state.detach() for state in states)]
            memories[layer] = kept[-settings.memory_length :] if settings.memory_length else []
            states = above
        outputs.append(torch.stack(states))
    return outputs


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"memory_length": 0},
        {"memory_length": 2},
        {"same_length": True},
        {"clamp_distance": 3},
        {"share_biases": False},
        {"embedding_size": 6},
        CLUSTERED,
    ],
    ids=lambda changes: "-".join(changes) or "plain",
)
@pytest.mark.parametrize("held", [0, 1 << 22], ids=["blocks", "at once"])
def test_segments_with_memory_equal_loops_over_queries_and_keys_with_every_gradient(
    changes: dict, held: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recurrence, "HELD_NUMEL", held)
    model = module(dataclasses.replace(SETTINGS, **changes))
    segments = list(some_ids(1, 12).split(4, 1))
    carry, outputs = None, []
    for segment in segments:
        output = model(batch_of(segment), carry)
        outputs.append(output.hidden[0])
        carry = output.carry
    expected = by_formula(model, [segment[0] for segment in segments])
    pull = torch.randn(12, WIDTH, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    parameters = dict(model.named_parameters())
    ours = torch.autograd.grad((torch.cat(outputs) * pull).sum(), list(parameters.values()))
    theirs = torch.autograd.grad((torch.cat(expected) * pull).sum(), list(parameters.values()))
    torch.testing.assert_close(torch.cat(outputs), torch.cat(expected), rtol=0, atol=1e-12)
    for name, one, other in zip(parameters, ours, theirs):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-10, msg=lambda text, name=name: f"{name}: {text}")


@pytest.mark.parametrize("changes", [{}, {"same_length": True}, {"clamp_distance": 4}, CLUSTERED], ids=str)
@pytest.mark.parametrize("parts", [[6, 6], [3, 4, 5], [1] * 12])
@pytest.mark.parametrize("held", [0, 1 << 22], ids=["blocks", "at once"])
def test_segments_with_memory_equal_one_long_segment_under_the_same_mask(
    changes: dict, parts: list[int], held: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recurrence, "HELD_NUMEL", held)
    # Without a limit the memory holds all; with one, a window of that length is what a token sees in the long one, too.
    memory_length = 5 if "same_length" in changes else 12
    model = module(dataclasses.replace(SETTINGS, num_layers=3, memory_length=memory_length, **changes))
    ids = some_ids(3, 12)
    with torch.no_grad():
        whole = model(batch_of(ids, contiguous=False))
        assert whole.carry is None
        carry, outputs = None, []
        for part in ids.split(parts, 1):
            output = model(batch_of(part), carry)
            outputs.append(output.hidden)
            carry = output.carry
    torch.testing.assert_close(torch.cat(outputs, 1), whole.hidden, rtol=0, atol=1e-12)
    assert carry["memory"].shape == (3, 3, memory_length, WIDTH)


def language_model(objective: AdaptiveLM | CausalLM, **changes: object) -> LanguageModel:
    torch.manual_seed(0)
    model = LanguageModel(dataclasses.replace(SETTINGS, **changes), (objective,), VOCAB_SIZE).double().eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.3 * torch.randn_like(parameter)
    return model


OBJECTIVES = {
    "one table": (AdaptiveLM(), {"cutoffs": (10, 18)}),
    "one table, projected": (AdaptiveLM(), {"cutoffs": (10, 18), "embedding_size": 6}),
    "one table, tied projection": (AdaptiveLM(tied_projections="all"), {"cutoffs": (10, 18), "embedding_size": 6}),
    "narrowing": (AdaptiveLM(), CLUSTERED),
    "narrowing, tails tied": (AdaptiveLM(tied_projections="tails"), CLUSTERED),
    "narrowing, all tied": (AdaptiveLM(tied_projections="all"), CLUSTERED),
    "narrowing, tables of its own": (AdaptiveLM(tied=False), CLUSTERED),
    "other cutoffs than the embeddings'": (AdaptiveLM(cutoffs=(5,)), {}),
    "no cutoffs": (AdaptiveLM(), {}),
}


def by_hand(model: LanguageModel, hidden: Tensor) -> Tensor:
    """Return the probability of every token, [V], for one state [D], from the definition."""
    objective, head, backbone = model.objectives[0], model.heads["clm"], model.backbone
    settings = backbone.settings
    cutoffs = settings.cutoffs if objective.cutoffs is None else objective.cutoffs
    bounds = [0, *cutoffs, VOCAB_SIZE]
    probabilities, tails = [], None
    for cluster, (begin, end) in enumerate(itertools.pairwise(bounds)):
        tied_input = objective.tied_projections == "all" or (objective.tied_projections == "tails" and cluster > 0)
        if settings.embedding_divisor > 1:
            table = (backbone.embeddings if objective.tied else head).tables[cluster].weight
            projection = backbone.embeddings.projections[cluster].weight if tied_input else None
        else:
            table = backbone.embeddings.tokens.weight[begin:end]
            projection = backbone.project.weight if tied_input else None
        if projection is None and str(cluster) in head.projections:
            projection = head.projections[str(cluster)].weight
        state = hidden if projection is None else projection.T @ hidden
        scores = [table[w] @ state + head.bias[begin + w] for w in range(end - begin)]
        if cluster == 0:
            if head.tails is not None:
                scores += [head.tails.weight[t] @ state + head.tails.bias[t] for t in range(len(bounds) - 2)]
            whole = torch.softmax(torch.stack(scores), 0)
            probabilities.append(whole[: end - begin])
            tails = whole[end - begin :]
        else:
            probabilities.append(tails[cluster - 1] * torch.softmax(torch.stack(scores), 0))
    return torch.cat(probabilities)


@pytest.mark.parametrize("name", OBJECTIVES)
def test_the_adaptive_softmax_equals_explicit_probabilities_and_they_sum_to_one(name: str) -> None:
    objective, changes = OBJECTIVES[name]
    model = language_model(objective, **changes)
    hidden = torch.randn(7, WIDTH, dtype=torch.float64)
    with torch.no_grad():
        found = model.vocabulary_logits(hidden)
        expected = torch.stack([by_hand(model, state) for state in hidden])
    assert found.shape == (7, VOCAB_SIZE)
    torch.testing.assert_close(found.exp(), expected, rtol=1e-12, atol=1e-14)
    torch.testing.assert_close(found.exp().sum(-1), torch.ones(7, dtype=torch.float64), rtol=0, atol=1e-12)


@pytest.mark.parametrize("name", OBJECTIVES)
def test_the_loss_is_minus_the_log_probability_of_the_targets_with_every_gradient(name: str) -> None:
    objective, changes = OBJECTIVES[name]
    model = language_model(objective, **changes)
    ids = some_ids(2, 9)
    targets = ids.roll(-1, 1)
    targets[1, :3] = -100
    at = (targets >= 0).flatten().nonzero()[:, 0]
    batch = dataclasses.replace(batch_of(ids), targets=targets, target_at=at, num_targets=len(at))
    parameters = dict(model.named_parameters())

    def gradients(loss: Tensor) -> tuple[Tensor | None, ...]:
        return torch.autograd.grad(loss, list(parameters.values()), allow_unused=True, materialize_grads=True)

    term = model(batch)[0]["clm"]
    states = model.backbone(batch).prediction.flatten(0, 1)[at]
    expected = -model.vocabulary_logits(states).gather(1, targets.flatten()[at, None]).sum()
    assert term.count == len(at) == 15
    torch.testing.assert_close(term.sum, expected, rtol=1e-12, atol=1e-12)
    for one, other in zip(gradients(term.sum), gradients(expected)):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-11)


def test_the_adaptive_softmax_equals_that_of_pytorch() -> None:
    cutoffs, width = (10, 18), 8
    model = language_model(AdaptiveLM(tied=False), **CLUSTERED)
    head = model.heads["clm"]
    theirs = nn.AdaptiveLogSoftmaxWithLoss(width, VOCAB_SIZE, cutoffs, div_value=2.0, head_bias=True).double()
    with torch.no_grad():
        # Theirs projects nothing to the head, and has no bias in the tails.
        head.projections["0"].weight.copy_(torch.eye(width))
        head.bias[10:] = 0
        theirs.head.weight.copy_(torch.cat([head.tables[0].weight, head.tails.weight]))
        theirs.head.bias.copy_(torch.cat([head.bias[:10], head.tails.bias]))
        for cluster, tail in enumerate(theirs.tail, 1):
            tail[0].weight.copy_(head.projections[str(cluster)].weight.T)
            tail[1].weight.copy_(head.tables[cluster].weight)
        hidden = torch.randn(20, width, dtype=torch.float64)
        targets = torch.randint(0, VOCAB_SIZE, (20,))
        clusters = head.clusters(None, None)
        torch.testing.assert_close(
            head.log_probabilities(hidden, clusters), theirs.log_prob(hidden), rtol=1e-12, atol=1e-12
        )
        loss = head.loss(hidden, clusters, targets) / 20
    torch.testing.assert_close(loss, theirs(hidden, targets).loss.detach(), rtol=1e-12, atol=1e-12)


def test_without_cutoffs_it_is_the_plain_softmax_over_the_tied_table_with_a_bias() -> None:
    adaptive, plain = language_model(AdaptiveLM()), language_model(CausalLM(bias=True))
    plain.load_state_dict(adaptive.state_dict())
    hidden = torch.randn(5, WIDTH, dtype=torch.float64)
    expected = torch.log_softmax(plain.vocabulary_logits(hidden), -1)
    torch.testing.assert_close(adaptive.vocabulary_logits(hidden), expected, rtol=1e-12, atol=1e-12)
