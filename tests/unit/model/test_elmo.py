"""ELMo: what its words, its layers and its two directions do. The whole network against loops: export/test_bilm.py."""

import dataclasses
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from torch import Tensor

from elision import recipes
from elision.data.batch import Batch, collate
from elision.data.example import Example
from elision.errors import InputError
from elision.model.characters import spell
from elision.model.elmo import Elmo, ElmoModel, LayerMix
from elision.model.language_model import LanguageModel
from elision.model.lstm import ProjectedLSTM
from elision.objectives import BidirectionalLM, MaskedLM

WORDS = ["<S>", "</S>", "<UNK>", "the", "cat", "sat", "on", "a", "mat", "Überraschung", "x" * 60, "x" * 48 + "y"]
SMALL = Elmo(hidden_size=12, cell_size=10, filters=((1, 4), (2, 5), (3, 6)), num_highways=1, dropout=0.0)


@pytest.fixture(autouse=True)
def in_float64() -> Iterator[None]:
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def built(settings: Elmo = SMALL, scale: float = 1.0) -> ElmoModel:
    """Return a model in evaluation mode; `scale` makes the recurrent weights larger."""
    torch.manual_seed(0)
    model = settings.build(len(WORDS)).eval()
    model.read_symbols(WORDS)
    with torch.no_grad():
        for layer in model.layers:
            for weight in layer.parameters():
                weight.mul_(scale)
    return model


def texts(*rows: list[int], packing: bool = False, row_length: int | None = None) -> Batch:
    """Return texts as both directions read them."""
    examples = [Example(np.array(row), np.zeros(len(row), bool)) for row in rows]
    return collate(examples, pad_id=0, packing=packing, row_length=row_length)


def streams(forward: list[list[int]], backward: list[list[int]]) -> Batch:
    """Return windows of streams, a forward and a backward one to each row."""
    size = len(forward[0])
    order = np.r_[np.arange(size), np.arange(size)[::-1]]
    examples = [
        Example(
            np.array(ahead + back),
            np.zeros(2 * size, bool),
            doc_ids=np.repeat([1, 2], size),
            order=order,
            targets=np.full(2 * size, 3),
        )
        for ahead, back in zip(forward, backward)
    ]
    return collate(examples, pad_id=0, packing=False, contiguous=True)


@pytest.mark.parametrize(
    ("name", "num_encoder", "num_backbone"),
    [("elmo-original", 18_037_840, 93_600_848), ("elmo-medium", 9_120_592, 28_027_728), ("elmo-small", 8_858_320, 13_593_296)],
)  # fmt: skip
def test_published_sizes_have_their_numbers_of_parameters(name: str, num_encoder: int, num_backbone: int) -> None:
    recipe = recipes.get(name)
    with torch.device("meta"):
        model = LanguageModel(recipe.backbone, recipe.objectives, recipe.tokenizer.vocab_size)
    backbone = model.backbone
    assert sum(p.numel() for p in backbone.embeddings.parameters()) == num_encoder
    mix = sum(p.numel() for p in backbone.mix.parameters())
    assert sum(p.numel() for p in backbone.parameters()) - mix == num_backbone
    assert sum(p.numel() for p in model.heads["bilm"].parameters()) in (407_050_623, 793_471 * 257, 793_471 * 129)


def test_the_softmax_of_the_original_has_its_number_of_parameters() -> None:
    with torch.device("meta"):
        head = BidirectionalLM().head(Elmo().build(1_000_000))
    assert sum(p.numel() for p in head.parameters()) == 407_050_623


def test_a_word_is_spelled_as_begin_bytes_end_and_empty_places() -> None:
    assert spell(["ab", "é", "<S>", "</S>", "<UNK>"], 8).tolist() == [
        [258, 97, 98, 259, 260, 260, 260, 260],
        [258, 0xC3, 0xA9, 259, 260, 260, 260, 260],
        [258, 256, 259, 260, 260, 260, 260, 260],
        [258, 257, 259, 260, 260, 260, 260, 260],
        [258, *b"<UNK>", 259, 260],
    ]


def test_words_that_agree_in_48_bytes_are_one_word() -> None:
    table = spell(["x" * 60, "x" * 48 + "y", "x" * 47 + "y"])
    assert table.shape == (3, 50) and (table[0] == table[1]).all() and (table[0] != table[2]).any()
    assert table[0, -1] == 259
    model = built()
    words = model.embeddings(torch.tensor([[10, 11, 9]]))
    assert torch.equal(words[0, 0], words[0, 1])
    assert not torch.allclose(words[0, 0], words[0, 2])


def test_the_same_word_has_the_same_first_layer_in_any_text() -> None:
    model = built()
    first = model.layer_states(texts([0, 3, 4, 5, 1]))[0]
    other = model.layer_states(texts([0, 8, 8, 7, 4, 6, 1]))[0]
    torch.testing.assert_close(first[0, 2], other[0, 4], rtol=0, atol=1e-14)
    assert torch.equal(first[..., :6], first[..., 6:]), "layer 0 is the word, twice"


def test_leaving_out_empty_windows_and_repeated_words_changes_no_vector() -> None:
    model = built()
    ids = torch.tensor([[3, 9, 10, 3, 0], [1, 4, 4, 9, 2]])
    encoder = model.embeddings.encoder
    characters = encoder.characters(model.embeddings.spellings[ids.flatten()].long())
    found = []
    for weight, bias in zip(encoder.filters, encoder.filter_biases):
        reach = len(weight) // characters.shape[-1]
        windows = characters.unfold(1, reach, 1).transpose(2, 3).flatten(2)
        found.append(torch.relu(windows @ weight + bias).amax(1))
    words = torch.cat(found, -1)
    for highway in encoder.highways:
        gate = torch.sigmoid(highway.carry(words))
        words = gate * torch.relu(highway.transform(words)) + (1 - gate) * words
    expected = encoder.output(words).view(2, 5, -1)
    torch.testing.assert_close(model.embeddings(ids), expected, rtol=0, atol=1e-13)


def test_gradients_of_the_word_encoder_are_those_of_its_formula() -> None:
    model = built()
    encoder = model.embeddings.encoder
    spelled = model.embeddings.spellings[:6]

    def of(*parameters: Tensor) -> Tensor:
        return torch.func.functional_call(
            encoder, dict(zip([name for name, _ in encoder.named_parameters()], parameters)), (spelled,)
        )

    parameters = tuple(p.detach().clone().requires_grad_() for p in encoder.parameters())
    assert torch.autograd.gradcheck(of, parameters)


def naive_lstm(
    layer: ProjectedLSTM, x: Tensor, h: Tensor, c: Tensor, keep: Tensor | None
) -> tuple[Tensor, Tensor, Tensor]:
    """Step by step, from the formulas: c = clip(f c + i tanh(j)), h = clip(W (o tanh(c)))."""
    outputs = []
    bias = layer.bias.view(2, 1, -1)
    for t in range(x.shape[1]):
        if keep is not None:
            h, c = h * keep[:, t], c * keep[:, t]
        o, i, f, j = (x[:, t] @ layer.input_weight + h @ layer.state_weight + bias).chunk(4, -1)
        c = torch.sigmoid(f + layer.forget_bias) * c + torch.sigmoid(i) * torch.tanh(j)
        c = c.clamp(-layer.cell_clip, layer.cell_clip) if layer.cell_clip else c
        h = (torch.sigmoid(o) * torch.tanh(c)) @ layer.projection
        h = h.clamp(-layer.projection_clip, layer.projection_clip) if layer.projection_clip else h
        outputs.append(h)
    return torch.stack(outputs, 1), h, c


@pytest.mark.parametrize(("cell_clip", "projection_clip"), [(0.0, 0.0), (0.7, 0.4), (3.0, 3.0)])
@pytest.mark.parametrize("resets", [False, True])
def test_the_lstm_and_its_gradients_equal_those_of_single_steps(
    cell_clip: float, projection_clip: float, resets: bool
) -> None:
    torch.manual_seed(1)
    layer = ProjectedLSTM(5, 6, 4, cell_clip=cell_clip, projection_clip=projection_clip)
    torch.nn.init.normal_(layer.bias)
    with torch.no_grad():
        for weight in (layer.input_weight, layer.state_weight, layer.projection):
            weight.mul_(2)
    inputs = [torch.randn(shape, requires_grad=True) for shape in ((2, 7, 3, 5), (2, 3, 4), (2, 3, 6))]
    keep = (torch.rand(2, 7, 3, 1) > 0.3).double() if resets else None
    wanted = [*inputs, *layer.parameters()]
    ours, theirs = layer(*inputs, keep), naive_lstm(layer, *inputs, keep)
    if cell_clip == 0.7:
        assert theirs[0].abs().max() == 0.4 and theirs[2].abs().max() == 0.7, "both limits are met"
    for one, other in zip(ours, theirs):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-13)
    weights = [torch.randn_like(each) for each in ours]
    for one, other in zip(
        torch.autograd.grad(sum((a * w).sum() for a, w in zip(ours, weights)), wanted),
        torch.autograd.grad(sum((a * w).sum() for a, w in zip(theirs, weights)), wanted),
    ):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-12)


def test_without_clipping_the_lstm_is_pytorchs_own_with_a_projection() -> None:
    torch.manual_seed(2)
    layer = ProjectedLSTM(5, 6, 4, num_directions=1)
    reference = torch.nn.LSTM(5, 6, proj_size=4)

    def turned(weight: Tensor) -> Tensor:
        # Theirs lie in the order i, f, g, o.
        o, i, f, j = weight.chunk(4, -1)
        return torch.cat([i, f, j, o], -1).T

    with torch.no_grad():
        layer.bias.normal_()
        reference.weight_ih_l0.copy_(turned(layer.input_weight[0]))
        reference.weight_hh_l0.copy_(turned(layer.state_weight[0]))
        reference.weight_hr_l0.copy_(layer.projection[0].T)
        shifted = layer.bias.clone()
        shifted[12:18] += 1
        reference.bias_ih_l0.copy_(turned(shifted[None])[:, 0])
        reference.bias_hh_l0.zero_()
    x, h, c = torch.randn(1, 7, 3, 5), torch.randn(1, 3, 4), torch.randn(1, 3, 6)
    ours, theirs = layer(x, h, c), reference(x[0], (h, c))
    torch.testing.assert_close(ours[0][0], theirs[0])
    torch.testing.assert_close(ours[2], theirs[1][1])


def test_memory_and_projected_state_stay_within_3() -> None:
    model = built(dataclasses.replace(SMALL, residual=False), scale=200.0)
    batch = streams([[0, 3, 4, 5, 6, 7, 8] * 3], [[3, 4, 5, 6, 7, 8, 1] * 3])
    output = model(batch)
    assert output.carry["cell"].abs().max() == 3.0
    assert output.carry["hidden"].abs().max() == 3.0
    assert output.hidden.abs().max() == 3.0


def test_the_state_of_the_second_layer_does_not_hold_what_is_added_to_its_output() -> None:
    model = built(scale=200.0)
    output = model(streams([[0, 3, 4]], [[4, 5, 1]]))
    assert output.hidden.abs().max() > 3.0
    assert output.carry["hidden"].abs().max() <= 3.0
    without = built(dataclasses.replace(SMALL, residual=False), scale=200.0)(streams([[0, 3, 4]], [[4, 5, 1]]))
    assert torch.equal(output.carry["hidden"], without.carry["hidden"])
    # At the last forward and the last backward place, what lies between output and state is the layer below.
    below = output.carry["hidden"][0, 0]
    torch.testing.assert_close(output.hidden[0, 2] - output.carry["hidden"][0, 1, 0], below[0])
    torch.testing.assert_close(output.hidden[0, 3] - output.carry["hidden"][0, 1, 1], below[1])


def test_forward_states_see_no_later_and_backward_states_no_earlier_word() -> None:
    model = built()
    ids = [0, 3, 4, 5, 6, 7, 1]
    before = model.layer_states(texts(ids))[1:]
    for at in range(len(ids)):
        changed = [*ids[:at], 8, *ids[at + 1 :]]
        for one, other in zip(before, model.layer_states(texts(changed))[1:]):
            moved = (one - other)[0].abs()
            forward, backward = moved[:, :6].amax(1) > 0, moved[:, 6:].amax(1) > 0
            assert forward.tolist() == [place >= at for place in range(len(ids))]
            assert backward.tolist() == [place <= at for place in range(len(ids))]


def test_of_streams_each_half_of_a_row_is_read_by_its_own_direction() -> None:
    model = built()
    ahead, back = [0, 3, 4, 5], [6, 7, 8, 1]
    states = model(streams([ahead], [back])).prediction
    torch.testing.assert_close(states[:, :4], model.layer_states(texts(ahead))[-1][..., :6])
    torch.testing.assert_close(states[:, 4:], model.layer_states(texts(back))[-1][..., 6:])


def test_two_batches_in_a_row_are_one_stream_and_not_two_beginnings() -> None:
    model = built()
    whole = model(streams([[0, 3, 4, 5, 6, 7]], [[3, 4, 5, 6, 7, 1]])).prediction
    first = model(streams([[0, 3, 4]], [[6, 7, 1]]))
    second = model(streams([[5, 6, 7]], [[3, 4, 5]]), first.carry).prediction
    # The backward stream comes to its left part last.
    torch.testing.assert_close(first.prediction, torch.cat([whole[:, :3], whole[:, 9:]], 1))
    torch.testing.assert_close(second, torch.cat([whole[:, 3:6], whole[:, 6:9]], 1))
    anew = model(streams([[5, 6, 7]], [[3, 4, 5]])).prediction
    assert (second - anew).abs().amax(-1).min() > 1e-6


def test_carried_states_lie_by_rows() -> None:
    model = built()
    rows = [[0, 3, 4], [5, 6, 7], [8, 3, 0]], [[6, 7, 1], [4, 4, 1], [3, 5, 7]]
    together = model(streams(*rows)).carry
    assert together["hidden"].shape == (3, 2, 2, 6) and together["cell"].shape == (3, 2, 2, 10)
    for row in range(3):
        alone = model(streams(rows[0][row : row + 1], rows[1][row : row + 1])).carry
        for name in alone:
            torch.testing.assert_close(together[name][row], alone[name][0])


def test_packed_texts_have_the_states_of_texts_alone() -> None:
    model = built()
    rows = [[0, 3, 4, 5, 1], [0, 6, 1], [0, 8, 8, 1], [0, 7, 5, 3, 4, 6, 1]]
    packed, apart = texts(*rows, packing=True, row_length=9), texts(*rows)
    assert len(packed.inputs) < len(rows) and (packed.doc_ids == 0).any()
    for layer, (one, other) in enumerate(zip(model.layer_states(packed), model.layer_states(apart))):
        for place, index in zip(packed.summary_at.tolist(), packed.examples):
            row, begin = divmod(place, packed.inputs.shape[1])
            size = len(rows[index])
            torch.testing.assert_close(
                one[row, begin : begin + size], other[index, :size], rtol=0, atol=1e-13, msg=f"layer {layer}"
            )
    summaries = model(packed).hidden.flatten(0, 1)[packed.summary_at]
    for summary, index in zip(summaries, packed.examples):
        alone = model.mix(model.layer_states(texts(rows[index])))
        torch.testing.assert_close(summary, alone[0].mean(0), rtol=0, atol=1e-13)


def test_the_mix_starts_as_the_mean_and_follows_its_weights() -> None:
    mix = LayerMix(3)
    layers = [torch.randn(2, 4) for _ in range(3)]
    torch.testing.assert_close(mix(layers), sum(layers) / 3)
    with torch.no_grad():
        mix.scale.fill_(2.5)
        torch.testing.assert_close(mix(layers), 2.5 * sum(layers) / 3)
        mix.weights.copy_(torch.tensor([0.0, 1.0, -1.0]))
    shares = np.exp([0, 1, -1]) / np.exp([0, 1, -1]).sum()
    torch.testing.assert_close(mix(layers), 2.5 * sum(float(s) * layer for s, layer in zip(shares, layers)))


def test_pretraining_leaves_the_mix_alone_and_tasks_train_it() -> None:
    with torch.device("meta"):
        pretrained = LanguageModel(SMALL, (BidirectionalLM(),), len(WORDS))
        assert not any(p.requires_grad for p in pretrained.backbone.mix.parameters())
        from elision.objectives import Classification

        classifier = LanguageModel(SMALL, (Classification(),), len(WORDS))
        assert all(p.requires_grad for p in classifier.backbone.mix.parameters())


def test_words_read_later_get_ids_and_change_no_other() -> None:
    model = built()
    before = model.layer_states(texts([0, 3, 4, 1]))
    model.read_more_symbols(["dog", "cat"])
    assert model.vocab_size == len(WORDS) + 2
    for one, other in zip(before, model.layer_states(texts([0, 3, 4, 1]))):
        assert torch.equal(one, other)
    new = model.embeddings(torch.tensor([[len(WORDS) + 1, 4]]))
    torch.testing.assert_close(new[0, 0], new[0, 1], msg="the same letters are the same word")


def test_weights_start_as_in_the_released_code() -> None:
    torch.manual_seed(0)
    model = dataclasses.replace(SMALL, filters=((1, 64), (3, 64)), cell_size=64, hidden_size=64).build(5)
    encoder = model.embeddings.encoder
    assert 0.99 < encoder.characters.weight.abs().max() <= 1
    assert 0.049 < encoder.filters[1].abs().max() <= 0.05
    assert abs(float(encoder.highways[0].transform.weight.detach().std()) - 128**-0.5) < 0.002
    assert (encoder.highways[0].carry.bias == -2).all() and (encoder.highways[0].transform.bias == 0).all()
    layer = model.layers[0]
    bound = (6 / (32 + 32 + 256)) ** 0.5
    assert 0.99 * bound < layer.state_weight.abs().max() <= bound
    assert (layer.bias == 0).all() and layer.forget_bias == 1


def test_half_precision_is_near_and_trains_every_weight() -> None:
    torch.set_default_dtype(torch.float32)
    model = built()
    batch = streams([[0, 3, 4, 5]], [[6, 7, 8, 1]])
    expected = model(batch).prediction
    with torch.autocast("cpu", torch.bfloat16):
        output = model(batch)
        every = model.layer_states(texts([0, 3, 4, 1]))
    assert output.prediction.dtype == torch.float32 and {layer.dtype for layer in every} == {torch.float32}
    torch.testing.assert_close(output.prediction, expected, rtol=0, atol=0.02)
    output.prediction.sum().backward()
    assert all(p.grad is not None for name, p in model.named_parameters() if not name.startswith("mix."))


def test_a_mask_of_visible_words_is_refused() -> None:
    with pytest.raises(InputError, match="LSTM"):
        built()(texts([0, 3, 1]), visible=torch.ones(1, 3, 3, dtype=torch.bool))


@pytest.mark.parametrize(
    ("field", "value"),
    [("hidden_size", 7), ("filters", ()), ("filters", ((0, 3),)), ("num_characters", 2), ("dropout", 1.0), ("cell_clip", -1.0)],
)  # fmt: skip
def test_settings_that_make_no_model_are_refused_by_name(field: str, value: object) -> None:
    with pytest.raises(InputError, match=field):
        dataclasses.replace(SMALL, **{field: value})


def test_what_reads_two_streams_goes_with_nothing_else() -> None:
    recipe, bert = recipes.get("elmo-tiny"), recipes.get("bert-tiny")
    for changes in ({"objectives": (MaskedLM(),)}, {"backbone": bert.backbone}, {"segmenter": bert.segmenter}):
        with pytest.raises(InputError, match="only go together"):
            dataclasses.replace(recipe, **changes)
