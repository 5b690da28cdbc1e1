"""Fine-tuned models: transformers' classifiers give the scores of ours."""

from pathlib import Path

import pytest
import torch
import transformers
from safetensors.torch import save_file

import elision
from elision.export.reading import read_folder, write_checkpoint
from elision.export.writing import write_folder
from elision.model.language_model import LanguageModel
from elision.tasks.classifier import Classifier
from elision.tasks.task import Task, save_task
from elision.train.checkpoint import write_weights
from tests import tiny
from tests.parity import reference

pytestmark = pytest.mark.parity

TEXTS = ["ba do ki.", "lume no ra suti ve ve ba.", "ki"]
PAIRS = [("ba do ki.", "lu me"), ("no", "ra su ti ve ba do."), ("ki lu", "me")]


def save_fine_tuned(folder: Path, name: str, task: Task) -> None:
    # Four times the width: transformers' GPT-1 knows no other.
    recipe = tiny.recipe(name, feedforward_size=128)
    tokenizer = tiny.tokenizer(recipe.tokenizer)
    folder.mkdir()
    recipe.save(folder / "recipe.json")
    tokenizer.save(folder / "tokenizer")
    save_task(task, folder)
    write_weights(
        folder, reference.scrambled(LanguageModel(recipe.backbone, (task.objective,), tokenizer.vocabulary.size))
    )


@pytest.mark.parametrize("pair", [False, True])
@pytest.mark.parametrize("kind", ["classification", "regression"])
@pytest.mark.parametrize(
    "name, architecture",
    [
        ("bert-tiny", "BertForSequenceClassification"),
        ("gpt2-tiny", "GPT2ForSequenceClassification"),
        ("gpt1-tiny", "OpenAIGPTForSequenceClassification"),
        ("gpt3-tiny", "GPTNeoForSequenceClassification"),
        ("ctrl-tiny", "CTRLForSequenceClassification"),
        ("roberta-tiny", "RobertaForSequenceClassification"),
        ("xlm-r-tiny", "XLMRobertaForSequenceClassification"),
        ("spanbert-tiny", "BertForSequenceClassification"),
        ("albert-tiny", "AlbertForSequenceClassification"),
        ("electra-tiny", "ElectraForSequenceClassification"),
        ("distilbert-tiny", "DistilBertForSequenceClassification"),
        ("deberta-tiny", "DebertaForSequenceClassification"),
        ("deberta-v3-tiny", "DebertaV2ForSequenceClassification"),
        ("xlnet-tiny", "XLNetForSequenceClassification"),
    ],
)
def test_auto_class_scores_a_padded_batch_of_texts_as_we_do(
    name: str, architecture: str, kind: str, pair: bool, tmp_path: Path
) -> None:
    labels = ("bad", "good", "so-so") if kind == "classification" else ()
    task = Task(kind, labels, pair, max_length=32, metric="accuracy")
    save_fine_tuned(tmp_path / "ours", name, task)
    loaded = elision.load(tmp_path / "ours")
    assert write_folder(loaded, tmp_path / "out") == architecture
    theirs, report = transformers.AutoModelForSequenceClassification.from_pretrained(
        tmp_path / "out", output_loading_info=True
    )
    assert not report["missing_keys"] and not report["unexpected_keys"], report
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path / "out")
    texts = PAIRS if pair else TEXTS
    columns = [list(column) for column in zip(*texts)] if pair else [texts]
    with torch.no_grad():
        scores = theirs(**tokenizer(*columns, padding=True, return_tensors="pt")).logits
    predictions = list(Classifier.load(tmp_path / "ours").predict(texts, precision="float32"))
    if kind == "regression":
        assert [p.score for p in predictions] == pytest.approx(scores[:, 0].tolist(), abs=1e-5)
        assert theirs.config.problem_type == "regression"
    else:
        expected = torch.softmax(scores, -1)
        reference.assert_close(torch.tensor([p.probabilities for p in predictions]), expected)
        assert [theirs.config.id2label[int(i)] for i in scores.argmax(-1)] == [p.label for p in predictions]
    assert scores.std(0).min() > 1e-3, "texts must differ in their scores for this to say anything"


@pytest.mark.parametrize("labels", [("bad", "good", "so-so"), ("score",)])
@pytest.mark.parametrize("name", ["bert", "gpt2"])
def test_a_classifier_of_transformers_keeps_its_head_and_its_labels(
    name: str, labels: tuple[str, ...], tmp_path: Path
) -> None:
    kind = {"bert": transformers.BertForSequenceClassification, "gpt2": transformers.GPT2ForSequenceClassification}
    settings = {"id2label": dict(enumerate(labels)), "label2id": {label: n for n, label in enumerate(labels)}}
    theirs = getattr(reference, name)(kind[name], pad_token_id=1, **settings)
    theirs.save_pretrained(tmp_path / "theirs")
    tiny.tokenizer(tiny.WORDPIECE if name == "bert" else tiny.BYTES).save(tmp_path / "theirs")
    # As is, and through a checkpoint.
    imported = read_folder(tmp_path / "theirs")
    assert imported.notes == []
    write_checkpoint(imported, tmp_path / "ours")
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path / "theirs")
    tokenizer.pad_token = tokenizer.pad_token or tokenizer.convert_ids_to_tokens(1)
    for texts in (TEXTS, PAIRS):
        columns = [list(column) for column in zip(*texts)] if texts is PAIRS else [texts]
        with torch.no_grad():
            scores = theirs(**tokenizer(*columns, padding=True, return_tensors="pt")).logits
        for folder in ("theirs", "ours"):
            classifier = Classifier.load(tmp_path / folder)
            predictions = list(classifier.predict(texts, precision="float32"))
            if len(labels) == 1:
                assert [p.score for p in predictions] == pytest.approx(scores[:, 0].tolist(), abs=1e-5)
            else:
                reference.assert_close(torch.tensor([p.probabilities for p in predictions]), torch.softmax(scores, -1))
                assert [labels[int(i)] for i in scores.argmax(-1)] == [p.label for p in predictions]


def test_a_head_that_gives_several_labels_is_left_out_with_a_note(tmp_path: Path) -> None:
    theirs = reference.bert(
        transformers.BertForSequenceClassification, num_labels=3, problem_type="multi_label_classification"
    )
    theirs.save_pretrained(tmp_path)
    loaded = elision.load(tmp_path)
    assert any("several labels" in note for note in loaded.notes)
    assert any("classifier.weight" in note for note in loaded.notes)
    assert [objective.name for objective in loaded.model.objectives] == ["mlm", "nsp"] and loaded.task is None
    ids = reference.token_ids(2, 9)
    batch, _ = loaded._batch(ids, None, None, None)
    with torch.no_grad():
        reference.assert_close(loaded.model.backbone(batch).hidden, theirs.bert(ids).last_hidden_state)


def test_a_table_of_segments_with_one_row_is_read(tmp_path: Path) -> None:
    theirs = reference.bert(transformers.BertForMaskedLM, type_vocab_size=1)
    theirs.save_pretrained(tmp_path)
    loaded = elision.load(tmp_path)
    ids = reference.token_ids(2, 9)
    with torch.no_grad():
        reference.assert_close(loaded.logits(ids), theirs(ids).logits)
    assert loaded.recipe.backbone.num_types == 1
    with pytest.raises(elision.errors.InputError, match=r"type_ids\[0\]\[0\] is 1"):
        loaded.logits(ids, type_ids=torch.ones(2, 9, dtype=torch.long))
    tensors = {name: value.clone() for name, value in theirs.state_dict().items() if "decoder" not in name}
    save_file(tensors, tmp_path / "model.safetensors")
    reference.assert_close(elision.load(tmp_path).logits(ids), loaded.logits(ids))
