"""Fine-tuning to write: what is read, what is learned, what comes out, for every kind of model that writes."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import torch

import elision
from elision.data.example import NO_TARGET, Example
from elision.data.frame import FRAMES
from elision.errors import InputError
from elision.generation.decoding import Decoding
from elision.model.encoder_decoder import EncoderDecoder
from elision.model.language_model import LanguageModel
from elision.tasks.batches import in_batches
from elision.tasks.classifier import Classifier
from elision.tasks.classify import finetune_classifier
from elision.tasks.encoding import Encoding
from elision.tasks.finetune import finetune
from elision.tasks.pairs_held_out import loss_of
from elision.tasks.pairs_of_text import TextPair
from elision.tasks.prompt import Prompt
from elision.tasks.seq2seq import Writing, finetune_writer, prepare, writing_objective
from elision.tasks.task import load_task
from elision.tasks.writer import Writer
from elision.tasks.writing import WritingEncoding
from elision.train.loop import Progress
from tests import tiny
from tests.unit.tasks import toy, toy_pairs

KINDS = ("bart", "t5", "prefix", "gpt2")
SETTINGS = dataclasses.replace(toy.SETTINGS, epochs=6)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, elision.loaded.Loaded]:
    folder = tmp_path_factory.mktemp("models")
    return {kind: elision.load(toy_pairs.untrained(folder / kind, kind)) for kind in KINDS}


def encoding(kind: str, max_length: int = 24, max_target_length: int = 6, **settings: object) -> WritingEncoding:
    backbone = tiny.recipe("gpt2-tiny").backbone if kind == "gpt2" else toy_pairs.recipe(kind).backbone
    words = tiny.vocabulary(40)
    return dataclasses.replace(WritingEncoding.of(backbone, words, max_length, max_target_length), **settings)


def ids(*values: int) -> np.ndarray:
    return np.array(values, np.int64)


def sides(example: Example) -> tuple[list[int], list[int] | None, list[int]]:
    decoder = None if example.decoder_inputs is None else example.decoder_inputs.tolist()
    return example.inputs.tolist(), decoder, example.targets.tolist()


def test_an_encoder_decoder_reads_one_side_and_writes_the_other() -> None:
    # Of the test vocabulary 2 and 3 frame a text for BART, 5 ends one for T5, 0 is padding.
    bart = encoding("bart")(ids(10, 11), ids(), ids(20, 21))
    assert sides(bart) == ([2, 10, 11, 3], [3, 2, 20, 21], [2, 20, 21, 3])
    t5 = encoding("t5")(ids(10, 11), ids(), ids(20, 21))
    assert sides(t5) == ([10, 11, 5], [0, 20, 21], [20, 21, 5])


def test_a_decoder_reads_the_source_and_its_prompt_and_learns_the_target_and_its_end_alone() -> None:
    example = encoding("gpt2")(ids(10, 11), ids(9), ids(20, 21))
    assert sides(example) == ([5, 10, 11, 9, 20, 21], None, [NO_TARGET] * 3 + [20, 21, 5])


def test_the_source_is_cut_at_its_end_and_the_prompt_after_it_stays() -> None:
    example = encoding("gpt2", max_length=14)(np.arange(10, 40), ids(9, 8), ids(20))
    assert example.inputs.tolist() == [5, *range(10, 16), 9, 8, 20]
    example = encoding("bart", max_length=8)(np.arange(10, 40), ids(9), ids(20))
    assert example.inputs.tolist() == [2, *range(10, 15), 9, 3]


@pytest.mark.parametrize(("kind", "symbols"), [("bart", 2), ("t5", 1), ("gpt2", 1)])
def test_a_target_that_is_cut_has_no_end_to_be_learned(kind: str, symbols: int) -> None:
    whole, cut = (encoding(kind)(ids(10), ids(), np.arange(20, 20 + size)) for size in (6 - symbols, 7 - symbols))
    end = 3 if kind == "bart" else 5
    assert whole.targets[-1] == end and cut.targets[-1] == NO_TARGET
    assert whole.inputs.tolist() == cut.inputs.tolist() and whole.targets[:-1].tolist() == cut.targets[:-1].tolist()


def test_languages_stand_behind_both_sides_and_begin_what_is_written() -> None:
    # mBART: X </s> [language]; the decoder reads the language of the target first.
    example = encoding("bart", languages=(30, 31), frame=FRAMES["causal"])(ids(10), ids(), ids(20))
    assert sides(example) == ([10, 5, 30], [31, 20, 5], [20, 5, 31])
    assert encoding("bart", languages=(30, 31)).first == 31


def test_symbols_of_languages_are_found_by_name(models: dict[str, elision.loaded.Loaded]) -> None:
    pairs = toy_pairs.pairs(8, 1)
    prepared = prepare(models["bart"], pairs, pairs, SETTINGS, writing=Writing(languages=("aa", "bb")))
    symbols = [models["bart"].tokenizer.raw.token_to_id(name) for name in ("aa_XX", "bb_XX")]
    example = prepared.train.example(0)
    assert example.inputs[-1] == symbols[0] and example.decoder_inputs[0] == example.targets[-1] == symbols[1]
    with pytest.raises(InputError, match="only encoder-decoders"):
        prepare(models["gpt2"], pairs, pairs, SETTINGS, writing=Writing(languages=("aa", "bb")))


def test_a_room_too_small_for_a_source_is_refused() -> None:
    with pytest.raises(InputError, match=r"no room for a source\. Raise max_length, or lower max_target_length"):
        encoding("gpt2", max_length=10)(ids(10), ids(9), ids(20))
    with pytest.raises(InputError, match="max_length is 99: the model has 64 positions"):
        encoding("bart", max_length=99)


@pytest.mark.parametrize("kind", KINDS)
def test_a_model_learns_to_translate_and_a_packed_batch_changes_no_loss(
    kind: str, models: dict[str, elision.loaded.Loaded], tmp_path: Path
) -> None:
    train, valid = toy_pairs.pairs(200, 1, most=3), toy_pairs.pairs(12, 2, most=3)
    heard: list[tuple[int, int]] = []
    settings = dataclasses.replace(SETTINGS, learning_rate=1e-2 if kind in ("gpt2", "prefix") else 3e-3, epochs=8)
    writing = Writing(prompt="{source}=" if kind in ("gpt2", "prefix") else None)
    prepared = prepare(models[kind], train, valid, settings, test=toy_pairs.pairs(5, 3, most=3), writing=writing)
    prepared.in_full.hear = lambda *done: heard.append(done)
    result = finetune(prepared, tmp_path / "run", settings)
    # Copying is never right, and there are 84 different targets.
    assert result.more["beside"]["copying the source"]["exact_match"] == 0
    assert result.metrics["exact_match"] >= 0.25 and result.metrics["loss"] < 1.2
    assert heard[-1] == (5, 5) and (12, 12) in heard

    lines = [json.loads(line) for line in (tmp_path / "run" / "predictions.jsonl").read_text().splitlines()]
    assert [(line["source"], tuple(line["references"])) for line in lines] == [
        (pair.source, pair.targets) for pair in valid
    ]
    right = sum(line["output"] in line["references"] for line in lines)
    assert right / len(lines) == pytest.approx(result.metrics["exact_match"])
    results = json.loads((tmp_path / "run" / "results.json").read_text())
    assert results["test"]["num"] == 5 and "bleu" in results["test"]["metrics"] and len(results["signatures"]) == 3

    writer = Writer.load(tmp_path / "run")
    assert list(writer.write([*(pair.source for pair in valid[:4]), " "])) == [
        *(line["output"] for line in lines[:4]), "",
    ]  # fmt: skip
    search = dataclasses.replace(writer.task.decoding, num_beams=3)
    assert list(writer.write([valid[0].source], decoding=search)) == [lines[0]["output"]]

    model = writer.model.double()
    packed, alone = 0.0, 0.0
    for packing in (True, False):
        examples = [prepared.train.example(index) for index in range(20)]
        with torch.no_grad():
            terms = [model(batch)[0][writer.task.objective.name] for batch in in_batches(examples, "cpu", packing)]
        total = float(sum(term.sum for term in terms))
        packed, alone = (total, alone) if packing else (packed, total)
    assert packed == pytest.approx(alone, rel=1e-9)


def test_the_head_of_pretraining_is_kept_unless_it_starts_from_scratch(tmp_path: Path) -> None:
    made = toy_pairs.recipe("t5")
    made = dataclasses.replace(made, objectives=(dataclasses.replace(made.objectives[0], bias=True, tied=False),))
    loaded = elision.load(toy_pairs.untrained(tmp_path / "base", "t5"))
    loaded.recipe = made
    torch.manual_seed(3)
    loaded.model = LanguageModel(made.backbone, made.objectives, loaded.model.backbone.vocab_size).eval()
    pairs = toy_pairs.pairs(8, 1)
    for from_scratch in (False, True):
        settings = dataclasses.replace(SETTINGS, from_scratch=from_scratch)
        prepared = prepare(loaded, pairs, pairs, settings)
        model = LanguageModel(made.backbone, (prepared.task.objective,), loaded.model.backbone.vocab_size)
        prepared.start(model)
        same = torch.equal(model.heads["seq2seq"].table.weight, loaded.model.heads["seq2seq"].table.weight)
        assert same is not from_scratch


def test_every_reference_is_learned_from_and_the_first_one_measures_the_loss(
    models: dict[str, elision.loaded.Loaded],
) -> None:
    pairs = [TextPair("ba", ("ra", "su")), TextPair("ki", ("ti",))]
    prepared = prepare(models["t5"], pairs, pairs[:1], SETTINGS)
    assert len(prepared.train) == 3 and prepared.num_rows == 2
    measured = prepared.held_out.measure(models["t5"].model, torch.float32)
    alone = prepare(models["t5"], pairs, [TextPair("ba", ("ra",))], SETTINGS)
    assert measured.metrics["loss"] == pytest.approx(loss_of(models["t5"].model, alone.held_out.plan))


def test_what_is_cut_is_said(models: dict[str, elision.loaded.Loaded]) -> None:
    pairs = [*toy_pairs.pairs(20, 1), TextPair("ba do ki lu ba do", ("ra",))]
    settings = dataclasses.replace(SETTINGS, max_length=6)
    notes = prepare(models["t5"], pairs, pairs, settings, writing=Writing(max_target_length=3)).notes
    assert len(notes) == 2
    assert "training sources" in notes[0] and "lose their end" in notes[0]
    assert "the end of the text is not learned from them" in notes[1]
    assert prepare(models["t5"], pairs, pairs, SETTINGS).notes == ()


def test_few_different_targets_are_classes_with_an_accuracy(
    models: dict[str, elision.loaded.Loaded], tmp_path: Path
) -> None:
    train = [(row.text, row.label) for row in toy.rows(80, 1)]
    valid = [(row.text, row.label) for row in toy.rows(16, 2)]
    settings = dataclasses.replace(SETTINGS, learning_rate=1e-2)
    result = finetune_writer(models["gpt2"], train, valid, tmp_path / "run", settings)
    assert result.task.metric == "accuracy" and set(result.task.labels) == {"red", "blue"}
    assert result.metrics["accuracy"] == result.metrics["exact_match"] > 0.9
    assert {line.label for line in result.by_class} == {"red", "blue"}
    assert result.baseline.name == "accuracy of the commonest target"
    assert set(result.metrics) == {"loss", "chrf", "exact_match", "accuracy", "macro_f1"}
    assert [signature[:5] for signature in result.more["signatures"]] == ["chrF2"]


def test_a_run_goes_on_only_with_the_same_settings(models: dict[str, elision.loaded.Loaded], tmp_path: Path) -> None:
    pairs = toy_pairs.pairs(16, 1)
    settings = dataclasses.replace(SETTINGS, steps=2)
    first = finetune_writer(models["gpt2"], pairs, pairs, tmp_path / "run", settings)
    again = finetune_writer(models["gpt2"], pairs, pairs, tmp_path / "run", settings)
    assert again.metrics == first.metrics and again.best_step == first.best_step
    with pytest.raises(InputError, match="was started with prompt None, now it is"):
        finetune_writer(
            models["gpt2"], pairs, pairs, tmp_path / "run", settings, writing=Writing(prompt="Q: {source} A:")
        )


def test_a_run_that_is_killed_goes_on_to_the_same_end(models: dict[str, elision.loaded.Loaded], tmp_path: Path) -> None:
    pairs = toy_pairs.pairs(48, 1)
    settings = dataclasses.replace(SETTINGS, steps=6)
    whole = finetune_writer(models["bart"], pairs, pairs[:6], tmp_path / "whole", settings)

    class Killed(Exception):
        pass

    def kill(progress: Progress) -> None:
        if progress.split == "validation" and progress.step == 4:
            raise Killed

    with pytest.raises(Killed):
        finetune_writer(models["bart"], pairs, pairs[:6], tmp_path / "run", settings, report=kill)
    resumed = finetune_writer(models["bart"], pairs, pairs[:6], tmp_path / "run", settings)
    assert resumed.metrics == whole.metrics
    weights = [
        elision.load(folder, which="last").model.state_dict() for folder in (tmp_path / "whole", tmp_path / "run")
    ]
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])


def test_the_task_of_a_run_comes_back_from_its_file(models: dict[str, elision.loaded.Loaded], tmp_path: Path) -> None:
    pairs = toy_pairs.pairs(16, 1)
    writing = Writing(prompt="to bb: {source}", decoding=Decoding(num_beams=2, bad_words=("ba",)), label_smoothing=0.2)
    settings = dataclasses.replace(SETTINGS, steps=1)
    result = finetune_writer(models["bart"], pairs, pairs, tmp_path / "run", settings, writing=writing)
    assert load_task(tmp_path / "run") == result.task == elision.load(tmp_path / "run").task
    assert result.task.objective.label_smoothing == 0.2 and result.task.decoding.num_beams == 2
    assert result.task.decoding.num_tokens == result.task.max_target_length


def test_labels_are_smoothed_as_the_family_did(models: dict[str, elision.loaded.Loaded]) -> None:
    found = [writing_objective(models[kind]).label_smoothing for kind in ("bart", "t5", "prefix")]
    assert found == [0.1, 0.0, 0.0]
    assert writing_objective(models["bart"], languages=True).label_smoothing == 0.2
    assert writing_objective(models["bart"], 0.0).label_smoothing == 0.0


@pytest.mark.parametrize(
    ("kind", "settings", "writing", "words"),
    [
        ("gpt2", {}, Writing(label_smoothing=0.1), "a causal language model does not know"),
        ("t5", {"freeze_backbone": True}, Writing(), "freeze_backbone would leave nothing to learn"),
        ("t5", {"metric": "bleu4"}, Writing(), "Did you mean 'bleu'"),
        ("t5", {}, Writing(tokenize="moses"), "tokenize is 'moses'"),
        ("t5", {"max_length": 5}, Writing(prompt="a long prompt before it {source} and behind it"), "no room"),
    ],
)
def test_what_does_not_fit_is_refused_before_training(
    kind: str, settings: dict, writing: Writing, words: str, models: dict[str, elision.loaded.Loaded]
) -> None:
    pairs = toy_pairs.pairs(8, 1)
    with pytest.raises(InputError, match=words):
        prepare(models[kind], pairs, pairs, dataclasses.replace(SETTINGS, **settings), writing=writing)


def test_a_masked_model_cannot_write(tmp_path: Path) -> None:
    bert = elision.load(toy.untrained(tmp_path / "bert", "bert-tiny"))
    with pytest.raises(InputError, match=r"cannot write: it is bidirectional .* Take an encoder-decoder"):
        prepare(bert, toy_pairs.pairs(4, 1), toy_pairs.pairs(4, 2), SETTINGS)


@pytest.mark.parametrize("text", ["summarize:", "{source} {source}", "{source} = {target}"])
def test_a_prompt_has_one_place_for_the_source_and_none_for_the_target(text: str) -> None:
    with pytest.raises(InputError, match="prompt is"):
        Prompt(text)


def test_an_encoder_decoder_classifies_by_the_last_place_of_the_text_that_it_reads_again(
    models: dict[str, elision.loaded.Loaded], tmp_path: Path
) -> None:
    backbone = toy_pairs.recipe("bart").backbone
    assert isinstance(backbone, EncoderDecoder)
    example = Encoding.of(backbone, tiny.vocabulary(40), 16)(ids(10, 11))
    assert example.inputs.tolist() == [2, 10, 11, 3] and example.decoder_inputs.tolist() == [3, 2, 10, 11]
    assert example.summary == 3 and example.targets is None
    result = finetune_classifier(models["bart"], toy.rows(80, 1), toy.rows(20, 2), tmp_path / "run", SETTINGS)
    assert result.metrics["accuracy"] > 0.9
    found = Classifier.load(tmp_path / "run").predict(["ba do ba", "ki lu"])
    assert [prediction.label for prediction in found] == ["red", "blue"]
