"""Fine-tuning a model that reads letters: words that pretraining never saw are words all the same."""

from collections.abc import Callable
from pathlib import Path

import pytest

import elision
from elision.data.store import Store
from elision.recipe import Recipe
from elision.tasks.classifier import Classifier
from elision.tasks.classify import finetune_classifier
from elision.tasks.finetune import FineTune
from elision.tasks.tag import finetune_tagger
from elision.tasks.tagged import joined
from elision.tasks.tagger import Tagger
from elision.train.loop import fit
from elision.train.pretrain import prepare_run
from tests import tiny

# The class is in a word that is in no store.
ROWS = [(f"bado {word} kilu", label) for word, label in (("wonderful", "good"), ("dreadful", "bad"))] * 12


@pytest.fixture
def pretrained(tmp_path: Path, store_of: Callable[[Recipe], Store], monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr("elision.train.loop.matmul_peak", lambda device, dtype: 1e9)
    recipe = tiny.recipe("elmo-tiny", steps=1)
    fit(prepare_run(recipe, store_of(recipe), tmp_path / "pretrained"))
    return tmp_path / "pretrained"


def test_words_of_a_task_are_learned_saved_and_read_again(pretrained: Path, tmp_path: Path) -> None:
    size = elision.load(pretrained).tokenizer.vocabulary.size
    settings = FineTune(steps=30, batch_size=8, learning_rate=1e-2)
    result = finetune_classifier(pretrained, ROWS, ROWS[:6], tmp_path / "run", settings)
    assert result.metrics["accuracy"] == 1.0
    tuned = elision.load(tmp_path / "run")
    assert (
        {"wonderful", "dreadful"} <= set(tuned.tokenizer.symbols()[size:]) <= {"bado", "kilu", "wonderful", "dreadful"}
    )
    assert tuned.model.backbone.embeddings.spellings.shape[0] == tuned.tokenizer.vocabulary.size
    assert tuned.model.backbone.mix.weights.abs().max() > 0, "the mix was trained"


def test_predictions_do_not_depend_on_the_company_of_unseen_words(pretrained: Path, tmp_path: Path) -> None:
    finetune_classifier(pretrained, ROWS, ROWS[:4], tmp_path / "run", FineTune(steps=5, batch_size=8))
    texts = ["bado wonderful kilu", "neverseen words me", "otherwise unseen"]
    classifier = Classifier.load(tmp_path / "run")
    together = [each.probabilities for each in classifier.predict(texts)]
    again = [each.probabilities for each in classifier.predict(texts)]
    alone = [next(Classifier.load(tmp_path / "run").predict([text])).probabilities for text in texts]
    for one, two, three in zip(together, again, alone):
        assert one == pytest.approx(two, abs=1e-6)
        assert one == pytest.approx(three, abs=1e-6)
    assert together[1] != together[2]


def test_from_scratch_reads_letters_too(pretrained: Path, tmp_path: Path) -> None:
    settings = FineTune(steps=30, batch_size=8, learning_rate=1e-2, from_scratch=True)
    result = finetune_classifier(pretrained, ROWS, ROWS[:6], tmp_path / "run", settings)
    assert result.metrics["accuracy"] == 1.0


def test_tags_are_told_by_the_letters_of_words_that_no_store_holds(pretrained: Path, tmp_path: Path) -> None:
    texts = [
        joined(["me", name, "su"], ["O", tag, "O"], "words")
        for name, tag in (("kathmandu", "B-LOC"), ("sita", "B-PER"))
    ]
    settings = FineTune(steps=40, batch_size=8, learning_rate=1e-2)
    result = finetune_tagger(pretrained, texts * 12, texts, tmp_path / "run", settings)
    assert result.metrics["f1"] == 1.0
    found = [prediction.tags for prediction in Tagger.load(tmp_path / "run").predict(texts)]
    assert found == [["O", "B-LOC", "O"], ["O", "B-PER", "O"]]
