"""Sampled softmax: what is drawn, how it is corrected for, and that it estimates the full softmax."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from elision.data.noise import Neighbours
from elision.errors import InputError
from elision.objectives import BidirectionalLM
from elision.objectives.sampled_softmax import SampledSoftmaxHead, draw_log_uniform, log_expected_count
from tests import tiny


def head(vocab_size: int, num_samples: int, width: int = 6) -> SampledSoftmaxHead:
    torch.manual_seed(0)
    made = SampledSoftmaxHead(vocab_size, width, num_samples).double()
    torch.nn.init.normal_(made.bias)
    return made


def naive_loss(made: SampledSoftmaxHead, hidden: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Place by place, from the formula, with the draws that the head will make from the same seed."""
    state = torch.get_rng_state()
    sampled, num_tries = draw_log_uniform(made.num_samples, len(made.weight))
    torch.set_rng_state(state)

    def score(place: torch.Tensor, word: int) -> torch.Tensor:
        probability = math.log((word + 2) / (word + 1)) / math.log(len(made.weight) + 1)
        expected = 1 - (1 - probability) ** num_tries
        return place @ made.weight[word] + made.bias[word] - math.log(expected)

    total = torch.zeros((), dtype=torch.float64)
    for place, target in zip(hidden, targets.tolist()):
        right = score(place, target)
        others = [score(place, word) for word in sampled.tolist() if word != target]
        total = total + torch.logsumexp(torch.stack([right, *others]), 0) - right
    return total


def test_drawn_words_are_distinct_and_the_tries_are_counted() -> None:
    torch.manual_seed(3)
    for num_samples, vocab_size in ((1, 10), (9, 10), (50, 1000), (8192, 793_471)):
        words, num_tries = draw_log_uniform(num_samples, vocab_size)
        assert len(set(words.tolist())) == num_samples
        assert words.min() >= 0 and words.max() < vocab_size
        assert num_tries >= num_samples


def test_single_draws_follow_the_log_uniform_distribution() -> None:
    torch.manual_seed(0)
    drawn = np.array([draw_log_uniform(1, 20)[0][0] for _ in range(20_000)])
    expected = np.log((np.arange(20) + 2) / (np.arange(20) + 1)) / np.log(21)
    assert expected.sum() == pytest.approx(1)
    np.testing.assert_allclose(np.bincount(drawn, minlength=20) / len(drawn), expected, atol=0.01)


def test_the_expected_count_is_how_often_a_word_is_in_a_sample() -> None:
    torch.manual_seed(0)
    counts, expected = np.zeros(30), np.zeros(30)
    for _ in range(4000):
        words, num_tries = draw_log_uniform(8, 30)
        counts[words] += 1
        expected += log_expected_count(torch.arange(30), 30, num_tries).exp().numpy()
    np.testing.assert_allclose(counts / 4000, expected / 4000, atol=0.03)


@pytest.mark.parametrize("num_samples", [1, 5, 19])
def test_the_loss_and_its_gradients_are_those_of_the_formula(num_samples: int, monkeypatch) -> None:
    # Small chunks, so that places are cut.
    monkeypatch.setattr("elision.objectives.sampled_softmax.CHUNK_NUMEL", 3 * num_samples)
    made = head(20, num_samples)
    hidden = torch.randn(11, 6, dtype=torch.float64, requires_grad=True)
    # Frequent targets are often among the sampled: accidental hits.
    targets = torch.tensor([0, 1, 2, 0, 19, 7, 3, 1, 0, 2, 5])
    wanted = [hidden, made.weight, made.bias]
    torch.manual_seed(5)
    expected = naive_loss(made, hidden, targets)
    ours = made.loss(hidden, targets)
    torch.testing.assert_close(ours, expected, rtol=1e-12, atol=1e-12)
    for one, other in zip(torch.autograd.grad(3 * ours, wanted), torch.autograd.grad(3 * expected, wanted)):
        torch.testing.assert_close(one, other, rtol=1e-11, atol=1e-12)


def test_evaluation_is_over_all_words() -> None:
    made, hidden = head(20, 5).eval(), torch.randn(7, 6, dtype=torch.float64)
    targets = torch.tensor([0, 3, 19, 2, 2, 8, 1])
    expected = F.cross_entropy(made.logits(hidden), targets, reduction="sum")
    torch.testing.assert_close(made.loss(hidden, targets), expected)
    made.train()
    assert abs(float(made.loss(hidden, targets).detach() - expected.detach())) > 1e-3


def test_a_sample_of_all_words_or_more_is_the_full_softmax() -> None:
    hidden, targets = torch.randn(7, 6, dtype=torch.float64), torch.tensor([0, 3, 19, 2, 2, 8, 1])
    for num_samples in (0, 20, 8192):
        made = head(20, num_samples).train()
        expected = F.cross_entropy(made.logits(hidden), targets, reduction="sum")
        torch.testing.assert_close(made.loss(hidden, targets), expected)


def test_more_samples_come_nearer_to_the_full_loss() -> None:
    hidden, targets = torch.randn(200, 6, dtype=torch.float64), torch.randint(0, 400, (200,))
    full = float(head(400, 0).loss(hidden, targets).detach())
    far = []
    for num_samples in (10, 100, 390):
        made = head(400, num_samples)
        drawn = [float(made.loss(hidden, targets).detach()) for _ in range(20)]
        far.append(abs(np.mean(drawn) / full - 1))
    assert far[2] < far[1] < far[0] and far[2] < 0.02


def test_the_sampled_head_pays_for_its_sample_alone() -> None:
    made = head(1000, 50, width=8)
    assert made.num_flops(3) == 2 * 3 * 8 * 51
    assert made.eval().num_flops(3) == 2 * 3 * 8 * 1000


def test_rare_words_are_predicted_as_unknown_and_directions_are_terms_of_their_own(store_of) -> None:
    recipe = tiny.recipe("elmo-tiny", dropout=0.0, num_targets=20)
    store = store_of(recipe)
    torch.manual_seed(0)
    model = tiny.model(recipe, store).double().eval()
    (batch,) = tiny.loader(recipe, store).microbatches(0)
    assert (batch.targets >= 20).any()
    terms, _ = model(batch)
    states = model.backbone(batch).prediction
    logits = model.heads["bilm"].logits(states)
    assert logits.shape[-1] == 20
    targets = torch.where(batch.targets < 20, batch.targets, 2)
    losses = F.cross_entropy(logits.flatten(0, 1), targets.flatten(), reduction="none").view_as(targets)
    half = targets.shape[1] // 2
    torch.testing.assert_close(terms["forward"].sum, losses[:, :half].sum())
    torch.testing.assert_close(terms["backward"].sum, losses[:, half:].sum())
    judged = model.judge(model.run(batch))
    hits = logits.argmax(-1) == targets
    assert int(judged["forward"].right) == int(hits[:, :half].sum())
    assert int(judged["backward"].right) == int(hits[:, half:].sum())
    assert [term.weight for term in terms.values()] == [0.5, 0.5]
    assert [term.count for term in terms.values()] == [half * len(targets)] * 2


def test_the_gradient_is_scaled_and_the_loss_is_not(store_of) -> None:
    found = []
    for scale in (1.0, 20.0):
        recipe = tiny.recipe("elmo-tiny", dropout=0.0, gradient_scale=scale)
        store = store_of(recipe)
        torch.manual_seed(0)
        model = tiny.model(recipe, store).double()
        terms, _ = model(tiny.loader(recipe, store).microbatches(0)[0])
        sum(term.sum for term in terms.values()).backward()
        found.append((terms["forward"].sum.detach(), model.backbone.layers[0].bias.grad))
    assert torch.equal(found[0][0], found[1][0])
    torch.testing.assert_close(20 * found[0][1], found[1][1])


def test_a_vocabulary_that_is_not_one_of_words_is_refused() -> None:
    with pytest.raises(InputError, match="unknown word has id 1"):
        Neighbours().check(tiny.vocabulary(10))
    for settings in ({"num_targets": 2}, {"num_samples": -1}, {"gradient_scale": 0.0}):
        with pytest.raises(InputError, match=next(iter(settings))):
            BidirectionalLM(**settings)
