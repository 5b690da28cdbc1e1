"""Source attribution by hand: a text is scored behind each code, and the prior weighs."""

import json
import math
from pathlib import Path

import pytest
import torch

import elision
from elision.cli import main
from elision.errors import InputError
from elision.loaded import Loaded
from elision.model.language_model import LanguageModel
from elision.tasks.attribute import attribute
from elision.text.codes import known_codes, with_codes
from elision.train.checkpoint import write_weights
from tests import tiny

TEXT = "ba do kilume nora."


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Loaded:
    """A model without training that knows the codes Books and News."""
    recipe = tiny.recipe("ctrl-tiny")
    tokenizer = tiny.tokenizer(with_codes(recipe.tokenizer, {"News", "Books"}))
    folder = tmp_path_factory.mktemp("ctrl") / "ours"
    folder.mkdir()
    torch.manual_seed(0)
    built = LanguageModel(recipe.backbone, recipe.objectives, tokenizer.vocabulary.size)
    with torch.no_grad():
        for parameter in built.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    recipe.save(folder / "recipe.json")
    tokenizer.save(folder / "tokenizer")
    write_weights(folder, built)
    return elision.load(folder)


def by_hand(model: Loaded, code: int) -> float:
    ids = model.tokenizer.encode(TEXT)
    total = 0.0
    for place, wanted in enumerate(ids):
        scores = model.logits([[code, *ids[:place]]])[0, -1].double()
        total += float(torch.log_softmax(scores, -1)[wanted])
    return total


def test_a_text_is_as_likely_behind_a_code_as_its_tokens_one_after_another(model: Loaded) -> None:
    assert known_codes(model.tokenizer) == ["Books", "News"]
    found = {one.code: one for one in attribute(model, TEXT)}
    expected = {code: by_hand(model, model.tokenizer.raw.token_to_id(f"<|{code}|>")) for code in ("Books", "News")}
    for code, likelihood in expected.items():
        assert found[code].log_likelihood == pytest.approx(likelihood, rel=1e-5)
        assert found[code].perplexity == pytest.approx(
            math.exp(-likelihood / len(model.tokenizer.encode(TEXT))), rel=1e-4
        )
    odds = math.exp(expected["Books"] - expected["News"])
    assert found["Books"].probability == pytest.approx(odds / (1 + odds), rel=1e-3)


def test_the_likeliest_code_comes_first_and_a_prior_can_turn_the_order(model: Loaded) -> None:
    first, second = attribute(model, TEXT)
    assert first.probability > second.probability and first.probability + second.probability == pytest.approx(1)
    gap = first.log_likelihood - second.log_likelihood
    turned = attribute(model, TEXT, prior={first.code: 1.0, second.code: math.exp(gap + 1)})
    assert turned[0].code == second.code
    assert turned[0].probability == pytest.approx(math.e / (1 + math.e), rel=1e-6)


def test_words_of_one_token_can_be_codes_and_a_long_text_counts_by_its_beginning(model: Loaded) -> None:
    (one,) = attribute(model, TEXT, ["a"])
    assert one.log_likelihood == pytest.approx(by_hand(model, model.tokenizer.encode("a")[0]), rel=1e-5)
    long, longer = (attribute(model, TEXT * times)[0] for times in (30, 60))
    assert long == longer and math.isfinite(long.perplexity)


def test_what_cannot_be_attributed_is_explained(model: Loaded, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is empty"):
        attribute(model, "")
    with pytest.raises(InputError, match=r"prior gives 'News' no positive number"):
        attribute(model, TEXT, prior={"Books": 1})
    with pytest.raises(InputError, match="'Poems' of the corpus has no token of its own"):
        attribute(model, TEXT, ["Poems"])


def test_the_command_prints_the_codes_and_reads_a_prior(
    model: Loaded, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    assert main(["attribute", str(model.path), TEXT]) == 0
    printed = capsys.readouterr().out
    assert "Books" in printed and "News" in printed and "%" in printed
    (tmp_path / "prior.json").write_text(json.dumps({"Books": 1e9, "News": 1e-9}))
    assert main(["attribute", str(model.path), TEXT, "--prior", str(tmp_path / "prior.json")]) == 0
    assert capsys.readouterr().out.split("\n")[1].startswith("Books")
    (tmp_path / "prior.json").write_text("[1, 2]")
    assert main(["attribute", str(model.path), TEXT, "--prior", str(tmp_path / "prior.json")]) == 2
    assert "must hold a JSON object of numbers" in capsys.readouterr().err
