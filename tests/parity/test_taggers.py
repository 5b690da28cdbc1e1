"""Taggers: those of transformers tag as ours do, read or written, and so does its pipeline on what we write."""

import dataclasses
from pathlib import Path

import pytest
import torch
import transformers

import elision
from elision.export.reading import read_folder, write_checkpoint
from elision.export.writing import write_folder
from elision.model.language_model import LanguageModel
from elision.tasks.tagger import Tagger
from elision.tasks.task import TaggingTask, save_task
from elision.train.checkpoint import write_weights
from tests import tiny
from tests.parity import reference

pytestmark = pytest.mark.parity

LABELS = ("O", "B-LOC", "I-LOC", "B-PER", "I-PER")
TEXTS = ["ba do ki lume", "no ra su ti ve ve ba . dolu", "kiba", "ba ki ra me su su su no do lu ti"]
CLASSES = {
    "bert-tiny": transformers.BertForTokenClassification,
    "gpt2-tiny": transformers.GPT2ForTokenClassification,
}


def save_tagger(folder: Path, name: str, pooler: bool = True) -> TaggingTask:
    recipe = tiny.recipe(name)
    if name == "bert-tiny":
        recipe = dataclasses.replace(recipe, backbone=dataclasses.replace(recipe.backbone, pooler=pooler))
    tokenizer = tiny.tokenizer(recipe.tokenizer)
    task = TaggingTask(LABELS, max_length=24)
    folder.mkdir()
    torch.manual_seed(0)
    recipe.save(folder / "recipe.json")
    tokenizer.save(folder / "tokenizer")
    save_task(task, folder)
    model = reference.scrambled(LanguageModel(recipe.backbone, (task.objective,), tokenizer.vocabulary.size))
    with torch.no_grad():
        # So that words, not the bias alone, decide.
        model.heads["tagging"].output.weight.mul_(8)
    write_weights(folder, model)
    return task


def their_words(model: torch.nn.Module, tokenizer: object, text: str) -> tuple[list[str], torch.Tensor]:
    """Return the words of a text and, for each, the shares of the tags at its first token."""
    words = text.split()
    encoded = tokenizer(text, return_tensors="pt", return_offsets_mapping=True)
    begins, at = [], 0
    for word in words:
        begins.append(text.index(word, at))
        at = begins[-1] + len(word)
    spans = encoded.pop("offset_mapping")[0].tolist()
    first = [next(n for n, (begin, end) in enumerate(spans) if begin <= place < end) for place in begins]
    with torch.no_grad():
        return words, torch.softmax(model(**encoded).logits[0, first], -1)


@pytest.mark.parametrize("name", CLASSES)
@pytest.mark.parametrize("pooler", [True, False])
def test_what_we_write_tags_every_word_as_we_do(name: str, pooler: bool, tmp_path: Path) -> None:
    save_tagger(tmp_path / "ours", name, pooler)
    assert write_folder(elision.load(tmp_path / "ours"), tmp_path / "out") == CLASSES[name].__name__
    theirs, report = transformers.AutoModelForTokenClassification.from_pretrained(
        tmp_path / "out", output_loading_info=True
    )
    assert not report["missing_keys"] and not report["unexpected_keys"], report
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path / "out")
    tagged = list(Tagger.load(tmp_path / "ours").predict([text.split() for text in TEXTS], "float32"))
    for text, ours in zip(TEXTS, tagged, strict=True):
        words, shares = their_words(theirs, tokenizer, text)
        assert ours.tokens == words
        assert ours.tags == [theirs.config.id2label[int(n)] for n in shares.argmax(-1)]
        assert ours.probabilities == pytest.approx(shares.amax(-1).tolist(), abs=1e-5)
    seen = [share for ours in tagged for share in ours.probabilities]
    assert max(seen) - min(seen) > 0.02, "words must differ in their shares for this to say anything"
    # What was written comes back with its labels.
    again = list(Tagger.load(tmp_path / "out").predict([text.split() for text in TEXTS], "float32"))
    assert [each.tags for each in again] == [each.tags for each in tagged]


def test_their_pipeline_finds_our_entities_where_every_word_is_one_token(tmp_path: Path) -> None:
    save_tagger(tmp_path / "ours", "bert-tiny")
    write_folder(elision.load(tmp_path / "ours"), tmp_path / "out")
    pipeline = transformers.pipeline("token-classification", str(tmp_path / "out"), aggregation_strategy="simple")
    tokenizer = tiny.tokenizer(tiny.WORDPIECE)
    whole = [word for word in ("ba", "do", "ki", "lu", "me", "no", "ra", "su") if len(tokenizer.encode(word)) == 1]
    texts = [" ".join(whole), " ".join(reversed(whole)), " ".join(whole[1::2])]
    assert len(whole) >= 5
    found = 0
    for text, ours in zip(texts, Tagger.load(tmp_path / "ours").predict([t.split() for t in texts], "float32")):
        theirs = [each for each in pipeline(text) if each["entity_group"] != "O"]
        assert [(e["entity_group"], e["start"], e["end"]) for e in theirs] == [
            (e.type, e.begin, e.end) for e in ours.entities
        ]
        assert [e["score"] for e in theirs] == pytest.approx([e.probability for e in ours.entities], abs=1e-5)
        found += len(theirs)
    assert found > 2


@pytest.mark.parametrize("name", CLASSES)
def test_what_they_write_keeps_its_head_and_its_tags(name: str, tmp_path: Path) -> None:
    build = reference.bert if name == "bert-tiny" else reference.gpt2
    labels = {"id2label": dict(enumerate(LABELS)), "label2id": {label: n for n, label in enumerate(LABELS)}}
    theirs = build(CLASSES[name], **labels)
    theirs.save_pretrained(tmp_path / "theirs")
    tiny.tokenizer(tiny.WORDPIECE if name == "bert-tiny" else tiny.BYTES).save(tmp_path / "theirs")
    imported = read_folder(tmp_path / "theirs")
    assert imported.notes == [] and imported.task.labels == LABELS
    write_checkpoint(imported, tmp_path / "ours")
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path / "theirs")
    for folder in ("theirs", "ours"):
        tagger = Tagger.load(tmp_path / folder)
        for text, ours in zip(TEXTS, tagger.predict([text.split() for text in TEXTS], "float32"), strict=True):
            _, shares = their_words(theirs, tokenizer, text)
            assert ours.tags == [LABELS[int(n)] for n in shares.argmax(-1)]
            assert ours.probabilities == pytest.approx(shares.amax(-1).tolist(), abs=1e-5)
    # Written again, it is what it was.
    write_folder(elision.load(tmp_path / "ours", dtype="stored"), tmp_path / "again")
    again = CLASSES[name].from_pretrained(tmp_path / "again")
    for key, value in theirs.state_dict().items():
        rows = again.state_dict()[key][: len(value)]
        assert torch.equal(rows, value), key
