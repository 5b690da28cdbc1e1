"""XLNet: ours and transformers' agree, both ways, in both streams and with memory."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers
from safetensors.torch import load_file
from torch import Tensor

import elision
from elision.data.batch import Batch, collate
from elision.data.example import Example
from elision.data.noise import PermutationMask
from elision.export import xlnet
from elision.export.reading import read_folder, write_checkpoint
from elision.export.writing import write_folder
from elision.loaded import Loaded
from elision.model.language_model import LanguageModel
from elision.objectives import Classification, SpanExtraction, TokenClassification
from elision.objectives.objective import Objective
from elision.text.tokenizer import Tokenizer, Unigram
from elision.text.vocabulary import Vocabulary
from tests import tiny
from tests.parity import reference

pytestmark = pytest.mark.parity

UNIGRAM = Unigram(vocab_size=300, layout="xlnet")


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return tiny.tokenizer(UNIGRAM)


def theirs_of(kind: type, dtype: torch.dtype = torch.float32, **settings: object) -> transformers.PreTrainedModel:
    """Return an XLNet of the given class: 2 layers, width 32."""
    config = {
        "vocab_size": reference.VOCAB_SIZE,
        "d_model": 32,
        "n_layer": 2,
        "n_head": 4,
        "d_inner": 48,
        "ff_activation": "gelu_new",
        "mem_len": None,
        "use_mems_eval": False,
    }
    return reference.scrambled(kind(transformers.XLNetConfig(**config | settings)), dtype)


def padded_input(left: bool) -> tuple[Tensor, Tensor, Tensor]:
    """Three rows of 11 tokens, the second with 4 places of padding; and their segments."""
    ids = reference.token_ids(3, 11)
    real = torch.ones(3, 11, dtype=torch.bool)
    real[1, : 4 if left else 11] = False
    if not left:
        real[1] = torch.arange(11) < 7
    return ids, real, torch.tensor([0] * 5 + [1] * 5 + [2]).expand(3, 11)


def permuted_batch(rows: int = 3, length: int = 12) -> Batch:
    """Return a batch of permuted rows of 4 targets: two stretches, a symbol at the end, segments 0, 1 and 2."""
    words = Vocabulary(reference.VOCAB_SIZE, np.arange(300) < 6, np.zeros(300, bool))
    noise = PermutationMask(rate=0.4, permute_length=length // 2)
    examples = []
    for row, ids in enumerate(reference.token_ids(rows, length).numpy()):
        special = np.arange(length) >= length - 1
        types = np.repeat([0, 1, 2], [length // 2, length // 2 - 1, 1])
        example = Example(ids, special, type_ids=types)
        # A symbol that is picked is no target, and their mapping has as many in every row.
        draws = (noise(example, words, np.random.default_rng([row, seed])) for seed in range(100))
        examples.append(next(drawn for drawn in draws if (drawn.targets >= 0).sum() == 4))
    return collate(examples, pad_id=5, packing=False)


def their_masks(batch: Batch) -> dict[str, Tensor]:
    """Return perm_mask and target_mapping of a batch with as many targets in each row."""
    rows, length = batch.inputs.shape
    asked = batch.targets >= 0
    blocked = (batch.order[:, None, :] > batch.order[:, :, None]).float()
    blocked[asked[:, :, None] & torch.eye(length, dtype=torch.bool)] = 1.0
    at = batch.target_at.view(rows, -1) % length
    mapping = torch.nn.functional.one_hot(at, length).float()
    return {"perm_mask": blocked, "target_mapping": mapping, "token_type_ids": batch.type_ids}


def ours_of(theirs: transformers.PreTrainedModel, folder: Path) -> Loaded:
    theirs.save_pretrained(folder)
    return elision.load(folder)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("activation", ["gelu", "gelu_new"])
@pytest.mark.parametrize("left", [True, False])
def test_imported_logits_equal_those_of_transformers(
    dtype: torch.dtype, activation: str, left: bool, tmp_path: Path
) -> None:
    theirs = theirs_of(transformers.XLNetLMHeadModel, dtype, ff_activation=activation)
    ours = ours_of(theirs, tmp_path)
    ids, real, types = padded_input(left)
    with torch.no_grad():
        expected = theirs(ids, attention_mask=real.to(dtype), token_type_ids=types).logits
        untyped = theirs(ids, attention_mask=real.to(dtype)).logits
    reference.assert_close(ours.logits(ids, visible=real, type_ids=types)[real], expected[real])
    reference.assert_close(ours.logits(ids, visible=real)[real], untyped[real])


def test_distances_can_be_clamped(tmp_path: Path) -> None:
    theirs = theirs_of(transformers.XLNetLMHeadModel, clamp_len=3)
    ours = ours_of(theirs, tmp_path)
    ids, _, types = padded_input(left=True)
    with torch.no_grad():
        reference.assert_close(ours.logits(ids, type_ids=types), theirs(ids, token_type_ids=types).logits)


def test_query_stream_equals_that_of_transformers_with_perm_mask_and_target_mapping(tmp_path: Path) -> None:
    theirs = theirs_of(transformers.XLNetLMHeadModel)
    ours = ours_of(theirs, tmp_path)
    batch = permuted_batch()
    with torch.no_grad():
        expected = theirs(batch.inputs, **their_masks(batch)).logits
        logits = ours.model.logits(batch).flatten(0, 1)[batch.target_at]
    reference.assert_close(logits.view_as(expected), expected)


def test_memory_and_both_streams_over_two_batches_equal_those_of_transformers(tmp_path: Path) -> None:
    theirs = theirs_of(transformers.XLNetLMHeadModel, mem_len=9, reuse_len=6, use_mems_eval=True)
    ours = ours_of(theirs, tmp_path)
    assert ours.recipe.backbone.memory_length == 9 and ours.recipe.backbone.reuse_length == 6
    carry, mems = None, None
    for shift in range(3):
        batch = permuted_batch()
        batch = dataclasses.replace(batch, inputs=batch.inputs.roll(shift, 1), contiguous=True)
        plain = dataclasses.replace(batch, order=None)
        with torch.no_grad():
            content = theirs(batch.inputs, token_type_ids=batch.type_ids, mems=mems).logits
            output = theirs(batch.inputs, mems=mems, **their_masks(batch))
            reference.assert_close(ours.model.vocabulary_logits(ours.model.backbone(plain, carry).prediction), content)
            prediction, after = (lambda o: (o.prediction, o.carry))(ours.model.backbone(batch, carry))
        logits = ours.model.vocabulary_logits(prediction.flatten(0, 1)[batch.target_at]).detach()
        reference.assert_close(logits.view_as(output.logits), output.logits)
        carry, mems = after, output.mems
        assert carry["memory"].shape[2] == min(9, 6 * (shift + 1))
        for layer, memory in enumerate(mems):
            reference.assert_close(carry["memory"][:, layer], memory.transpose(0, 1))


def test_loss_and_every_gradient_equal_those_of_transformers(tmp_path: Path) -> None:
    theirs = theirs_of(transformers.XLNetLMHeadModel)
    ours = ours_of(theirs, tmp_path)
    batch = permuted_batch()
    labels = batch.targets.flatten()[batch.target_at].view(len(batch.inputs), -1)
    expected = theirs(batch.inputs, labels=labels, **their_masks(batch)).loss
    expected.backward()
    (term,) = ours.model(batch)[0].values()
    loss = term.sum / term.count
    loss.backward()
    reference.assert_close(loss.detach(), expected.detach())
    table = xlnet.key_map(ours.recipe.backbone, ("plm",))
    gradients = table.to_theirs({name: value.grad for name, value in ours.model.named_parameters()})
    names = dict(theirs.named_parameters())
    assert gradients.keys() == names.keys()
    for name, gradient in gradients.items():
        reference.assert_close(gradient, names[name].grad)
        assert gradient.abs().max() > 0, name


@pytest.mark.parametrize("memory", [None, 384])
def test_export_of_an_import_is_the_identity(memory: int | None, tokenizer: Tokenizer, tmp_path: Path) -> None:
    reuse = None if memory is None else 256
    theirs = theirs_of(transformers.XLNetLMHeadModel, mem_len=memory, reuse_len=reuse, use_mems_eval=memory is not None)
    theirs.save_pretrained(tmp_path / "theirs")
    tokenizer.save(tmp_path / "theirs")
    write_checkpoint(read_folder(tmp_path / "theirs"), tmp_path / "ours")
    assert write_folder(elision.load(tmp_path / "ours"), tmp_path / "back") == "XLNetLMHeadModel"
    before, after = (load_file(tmp_path / name / "model.safetensors") for name in ("theirs", "back"))
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)
    config, again = (transformers.XLNetConfig.from_pretrained(tmp_path / name).to_dict() for name in ("theirs", "back"))
    assert {name: again[name] for name in config if name not in ("transformers_version", "_name_or_path")} == {
        name: value for name, value in config.items() if name not in ("transformers_version", "_name_or_path")
    }


def test_auto_class_loads_an_export_with_equal_logits(tokenizer: Tokenizer, tmp_path: Path) -> None:
    reference.save_checkpoint(tmp_path / "ours", tiny.recipe("xlnet-tiny"), tokenizer)
    ours = elision.load(tmp_path / "ours")
    assert write_folder(ours, tmp_path / "out") == "XLNetLMHeadModel"
    theirs, report = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "out", output_loading_info=True)
    assert not report["missing_keys"] and not report["unexpected_keys"], report
    ids, real, types = padded_input(left=True)
    with torch.no_grad():
        expected = theirs(ids, attention_mask=real.float(), token_type_ids=types).logits
    reference.assert_close(ours.logits(ids, real, types)[real], expected[real])
    reference.assert_close(elision.load(tmp_path / "out").logits(ids, real, types)[real], expected[real])
    padded = transformers.AutoTokenizer.from_pretrained(tmp_path / "out")(["ba do", "ba"], padding=True)
    assert padded["input_ids"][1][0] == tokenizer.vocabulary.pad and padded["token_type_ids"][0][-1] == 2


def test_states_of_a_model_without_heads_equal_and_its_head_starts_anew(tmp_path: Path) -> None:
    theirs = theirs_of(transformers.XLNetModel)
    loaded = ours_of(theirs, tmp_path)
    assert [objective.name for objective in loaded.recipe.objectives] == ["plm"]
    assert any("a new one" in note for note in loaded.notes)
    ids, real, types = padded_input(left=True)
    batch, _ = loaded._batch(ids, real, types, None)
    with torch.no_grad():
        expected = theirs(ids, attention_mask=real.float(), token_type_ids=types).last_hidden_state
        reference.assert_close(loaded.model.backbone(batch).hidden[real], expected[real])


HEADS = [
    (Classification(num_labels=3), transformers.XLNetForSequenceClassification),
    (TokenClassification(num_labels=3), transformers.XLNetForTokenClassification),
    (SpanExtraction(), transformers.XLNetForQuestionAnsweringSimple),
]


@pytest.mark.parametrize("objective, kind", HEADS, ids=lambda value: getattr(value, "name", None))
def test_heads_for_tasks_equal_those_of_transformers_both_ways(objective: Objective, kind: type) -> None:
    backbone = dataclasses.replace(
        tiny.recipe("xlnet-tiny").backbone, memory_length=0, reuse_length=None, num_heads=4, feedforward_size=48
    )
    model = reference.scrambled(LanguageModel(backbone, (objective,), reference.VOCAB_SIZE))
    assert xlnet.ARCHITECTURES[(objective.name,)] == kind.__name__
    table = xlnet.key_map(backbone, (objective.name,))
    theirs = theirs_of(kind, num_labels=2 if objective.name == "answering" else 3)
    theirs.load_state_dict(table.to_theirs(model.state_dict()), strict=True)
    shapes = {name: value.shape for name, value in model.state_dict().items()}
    back = table.to_ours(theirs.state_dict(), shapes, "theirs")
    assert all(torch.equal(back[name], value) for name, value in model.state_dict().items())
    ids, real, types = padded_input(left=True)
    batch = Batch(
        inputs=ids,
        positions=torch.zeros_like(ids),
        doc_ids=real.long(),
        targets=torch.full_like(ids, -100),
        target_at=torch.empty(0, dtype=torch.long),
        summary_at=torch.arange(3) * 11 + 10,
        type_ids=types,
        num_examples=3,
        num_tokens=int(real.sum()),
    )
    with torch.no_grad():
        output = theirs(ids, attention_mask=real.float(), token_type_ids=types)
        read = model.backbone(batch)
        head = model.heads[objective.name]
        if isinstance(objective, Classification):
            reference.assert_close(objective.scores(head, model.backbone, read, batch), output.logits)
        elif isinstance(objective, TokenClassification):
            reference.assert_close(head(read.hidden)[real], output.logits[real])
        else:
            scores = head(read.hidden)[real]
            reference.assert_close(scores, torch.stack([output.start_logits, output.end_logits], -1)[real])
