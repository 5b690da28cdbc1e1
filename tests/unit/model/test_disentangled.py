"""Disentangled attention: every path against plain loops over the formula of the paper."""

import itertools
import math

import pytest
import torch
from torch import Tensor

from elision.model import disentangled, disentangled_blocks
from elision.model.disentangled import DisentangledAttention, Distances, Slots, attend, attend_reference, table_rows
from elision.model.disentangled import bucket as bucket_of
from elision.model.visibility import CAUSAL, EVERYTHING, Visible

WIDTH, HEADS = 12, 3


@pytest.mark.parametrize(
    ("distance", "bucket"),
    [(0, 0), (1, 1), (128, 128), (129, 129), (139, 136), (200, 169), (300, 207), (400, 233), (511, 255)],
)
def test_buckets_of_distances(distance: int, bucket: int) -> None:
    given = torch.tensor([distance, -distance])
    assert bucket_of(given, 256, 512).tolist() == [bucket, -bucket]
    assert table_rows(given, 512, 256).tolist() == [bucket + 256, 256 - bucket]


def test_buckets_are_odd_and_rise_with_distance_up_to_255() -> None:
    buckets = bucket_of(torch.arange(-511, 512), 256, 512)
    assert torch.equal(buckets, -buckets.flip(0))
    assert (buckets.diff() >= 0).all() and buckets.diff().max() == 1
    assert buckets.min() == -255 and buckets.max() == 255


def test_without_buckets_every_distance_has_a_row_and_the_farthest_share_one() -> None:
    distance = torch.tensor([-700, -512, -511, -1, 0, 1, 511, 512, 700])
    assert table_rows(distance, 512, None).tolist() == [0, 0, 1, 511, 512, 513, 1023, 1023, 1023]
    assert table_rows(torch.tensor([5000, -5000]), 512, 256).tolist() == [511, 0]


def attention(**settings: bool) -> DisentangledAttention:
    """Return a layer in float64 whose every tensor is random."""
    wanted = {
        "content_to_position": True,
        "position_to_content": True,
        "position_to_position": False,
        "share_projections": False,
        "key_bias": False,
    }
    layer = DisentangledAttention(WIDTH, HEADS, dropout=0.0, position_dropout=0.0, **wanted | settings).double()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.copy_(0.5 * torch.randn(parameter.shape, generator=generator, dtype=torch.float64))
    return layer


def distances(length: int, max_distance: int, num_buckets: int | None) -> Distances:
    """Return a random table with the row of every distance of a row of this length."""
    rows = table_rows(torch.arange(1 - length, length), max_distance, num_buckets)
    table = random(2 * (num_buckets or max_distance), WIDTH, seed=9)
    return Distances(table, rows)


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def by_loops(layer: DisentangledAttention, hidden: Tensor, table: Distances, mask: Tensor) -> Tensor:
    """Return what the layer adds, one query, key and channel at a time, from equation 4 and the rules of the code."""
    rows, length, _ = hidden.shape
    size = WIDTH // HEADS
    weights = layer.query_key_value.weight.chunk(3)
    if layer.query_key_value.bias is None:
        biases = (layer.query_bias, torch.zeros(WIDTH).double(), layer.value_bias)
    else:
        biases = layer.query_key_value.bias.chunk(3)
    query, key, value = (hidden @ weight.T + bias for weight, bias in zip(weights, biases))
    own = layer.position_key, layer.position_query
    key_of = (lambda at: table.vectors_RD[at] @ weights[1].T + biases[1]) if own[0] is None else None
    key_of = key_of or (lambda at: own[0](table.vectors_RD[at]))
    query_of = (lambda at: table.vectors_RD[at] @ weights[0].T + biases[0]) if own[1] is None else None
    query_of = query_of or (lambda at: own[1](table.vectors_RD[at]))
    num_terms = 1 + layer.content_to_position + layer.position_to_content + layer.position_to_position
    mixed = torch.zeros(rows, length, WIDTH, dtype=torch.float64)
    for b, h, i in itertools.product(range(rows), range(HEADS), range(length)):
        part = slice(h * size, (h + 1) * size)
        scores = torch.full((length,), -math.inf, dtype=torch.float64)
        for j in range(length):
            if not mask[b, i, j]:
                continue
            at = int(table.rows_N[i - j + length - 1])
            score = query[b, i, part] @ key[b, j, part]
            if layer.content_to_position:
                score = score + query[b, i, part] @ key_of(at)[part]
            if layer.position_to_content:
                score = score + key[b, j, part] @ query_of(at)[part]
            if layer.position_to_position:
                score = score + query_of(at)[part] @ key_of(at)[part]
            scores[j] = score / math.sqrt(num_terms * size)
        weight = scores.softmax(0)
        mixed[b, i, part] = sum(weight[j] * value[b, j, part] for j in range(length))
    return mixed @ layer.output.weight.T + layer.output.bias


KINDS = {
    "version 1": {},
    "version 3": {"share_projections": True, "key_bias": True},
    "own, with a bias": {"key_bias": True},
    "content to position": {"position_to_content": False},
    "position to content": {"content_to_position": False},
    "content alone": {"content_to_position": False, "position_to_content": False},
    "all terms": {"position_to_position": True},
    "all terms, shared": {"position_to_position": True, "share_projections": True, "key_bias": True},
    "position to position": {
        "content_to_position": False,
        "position_to_content": False,
        "position_to_position": True,
    },
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("max_distance", "num_buckets"), [(8, None), (3, None), (8, 4)])
def test_a_layer_does_what_the_formula_says(kind: str, max_distance: int, num_buckets: int | None) -> None:
    layer, table, hidden = attention(**KINDS[kind]), distances(6, max_distance, num_buckets), random(2, 6, WIDTH)
    documents = torch.tensor([[1, 1, 1, 1, 1, 1], [1, 1, 2, 2, 2, 0]])
    mask = documents[:, :, None] == documents[:, None, :]
    with torch.no_grad():
        expected = by_loops(layer, hidden, table, mask)
        torch.testing.assert_close(layer(hidden, table, Visible(mask[:, None])), expected, rtol=0, atol=1e-12)
        # The same, asked for some places of each row alone; as often as wanted.
        places = torch.tensor([1, 4, 8])
        reader = layer.reader(hidden, table, Visible(mask[:, None]), Slots.of(places, 2, 6))
        for _ in range(2):
            asked = reader(hidden.flatten(0, 1)[places])
            torch.testing.assert_close(asked, expected.flatten(0, 1)[places], rtol=0, atol=1e-12)


@pytest.mark.parametrize("visible", ["all", "documents", "causal"])
@pytest.mark.parametrize(
    ("shape", "block", "group"),
    [((2, 3, 7, 4), 3, 1), ((2, 3, 7, 4), 128, 1 << 18), ((3, 2, 150, 4), 64, 1 << 15), ((1, 1, 1, 2), 4, 4),
     ((5, 2, 8, 4), 4, 128)],
)  # fmt: skip
def test_the_fast_paths_agree_with_the_readable_one(
    shape: tuple[int, ...], block: int, group: int, visible: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(disentangled_blocks, "BLOCK", block)
    monkeypatch.setattr(disentangled_blocks, "GROUP_NUMEL", group)
    rows, heads, length, channels = shape
    documents = torch.randint(0, 3, (rows, length), generator=torch.Generator().manual_seed(0)).sort(1).values
    sees = {
        "all": EVERYTHING,
        "causal": CAUSAL,
        "documents": Visible((documents[:, :, None] == documents[:, None, :])[:, None]),
    }[visible]
    content = [random(*shape, seed=n).requires_grad_() for n in range(3)]
    tables = [random(heads, 2 * length - 1, channels, seed=n).requires_grad_() for n in (3, 4)]
    above = random(*shape, seed=5)
    for key, query in itertools.product((tables[0], None), (tables[1], None)):
        given = [*content, *(each for each in (key, query) if each is not None)]
        expected, _ = attend_reference(*content, key, query, sees, 0.3)
        wanted = torch.autograd.grad(expected, given, above)
        for compiling in (False, True):
            monkeypatch.setattr(torch.compiler, "is_compiling", lambda compiling=compiling: compiling)
            mixed = attend(*content, key, query, sees, 0.3)
            torch.testing.assert_close(mixed, expected, rtol=0, atol=1e-11)
            for ours, theirs in zip(torch.autograd.grad(mixed, given, above), wanted, strict=True):
                torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-10)


def test_the_backward_pass_drops_the_weights_that_the_forward_pass_dropped() -> None:
    given = [random(2, 2, 5, 3, seed=n).requires_grad_() for n in range(3)]
    given += [random(2, 9, 3, seed=n).requires_grad_() for n in (3, 4)]

    def dropped(*tensors: Tensor) -> Tensor:
        torch.manual_seed(1)
        return attend(*tensors, EVERYTHING, 0.3, 0.4)

    assert not torch.equal(dropped(*given), attend(*given, EVERYTHING, 0.3))
    assert torch.autograd.gradcheck(dropped, given)


def test_dropout_keeps_the_mean_and_follows_from_the_global_seed() -> None:
    content = [random(1, 2, 64, 4, seed=n) for n in range(2)]
    ones = torch.ones(1, 2, 64, 4, dtype=torch.float64)

    def mean(seed: int) -> Tensor:
        torch.manual_seed(seed)
        return attend(*content, ones, None, None, EVERYTHING, 0.0, 0.25)[..., 0]

    assert torch.equal(mean(1), mean(1)) and not torch.equal(mean(1), mean(2))
    # 64 equal weights, each kept with 3/4: the sum is 1 with a standard deviation of sqrt(1/3/64).
    sums = torch.stack([mean(seed) for seed in range(40)])
    assert abs(sums.mean() - 1) < 4 * math.sqrt(1 / 3 / 64 / sums.numel())
    assert sums.std() == pytest.approx(math.sqrt(1 / 3 / 64), rel=0.05)


def test_relative_input_of_zeros_leaves_content_attention_over_the_root_of_three_widths() -> None:
    layer, hidden = attention(share_projections=True, key_bias=True), random(2, 6, WIDTH)
    nothing = Distances(torch.zeros(16, WIDTH).double(), table_rows(torch.arange(-5, 6), 8, None))
    with torch.no_grad():
        layer.query_key_value.bias[: 2 * WIDTH] = 0
        query, key, value = (hidden @ layer.query_key_value.weight.T + layer.query_key_value.bias).chunk(3, -1)
        heads = [each.unflatten(-1, (HEADS, -1)).transpose(1, 2) for each in (query, key, value)]
        size = WIDTH // HEADS
        for root, same in ((3 * size, True), (size, False)):
            mixed, _ = attend_reference(*heads, None, None, EVERYTHING, 1 / math.sqrt(root))
            expected = layer.output(mixed.transpose(1, 2).flatten(2))
            assert torch.allclose(layer(hidden, nothing, EVERYTHING), expected, rtol=0, atol=1e-12) is same


def test_both_relative_terms_of_a_pair_read_the_same_row() -> None:
    # Tokens of one content: what query i sees of the place of key j is then what key j sees of the place of query i, if
    # both look at i - j. The paper's j - i in the second term would transpose it.
    content = random(1, 1, 1, 4).expand(1, 1, 5, 4)
    table, values = random(1, 9, 4, seed=1), random(1, 1, 5, 4, seed=2)
    one = attend(content, content, values, table, None, EVERYTHING, 0.5)
    other = attend(content, content, values, None, table, EVERYTHING, 0.5)
    turned = attend(content, content, values, None, table.flip(1), EVERYTHING, 0.5)
    torch.testing.assert_close(one, other, rtol=0, atol=1e-12)
    assert (one - turned).abs().max() > 0.01


def test_slots_hold_every_place_once_by_row() -> None:
    places = torch.tensor([1, 2, 4, 10, 13, 14])
    slots = Slots.of(places, 3, 5)
    assert slots.columns_BS.tolist() == [[1, 2, 4], [0, 0, 0], [0, 3, 4]]
    assert slots.slot_M.tolist() == [0, 1, 2, 6, 7, 8]
    assert slots.place_BS.flatten()[slots.slot_M].tolist() == [0, 1, 2, 3, 4, 5]
    wider = Slots.of(places, 3, 5, most=4)
    assert wider.columns_BS.shape == (3, 4) and wider.slot_M.tolist() == [0, 1, 2, 8, 9, 10]


def test_few_rows_at_a_time_are_decoded_as_all_are(monkeypatch: pytest.MonkeyPatch) -> None:
    layer, table, hidden = attention(), distances(6, 8, None), random(4, 6, WIDTH)
    places = torch.tensor([0, 5, 7, 13, 20])
    asking = random(5, WIDTH, seed=3)
    whole = layer.reader(hidden, table, EVERYTHING, Slots.of(places, 4, 6))(asking)
    monkeypatch.setattr(disentangled, "CHUNK_NUMEL", 1)
    apart = layer.reader(hidden, table, EVERYTHING, Slots.of(places, 4, 6))(asking)
    torch.testing.assert_close(apart, whole, rtol=0, atol=1e-12)
