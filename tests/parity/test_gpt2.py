"""GPT-2: ours and transformers' agree, both ways."""

from pathlib import Path

import pytest
import torch
import transformers
from safetensors.torch import load_file

import elision
from elision.data.batch import Batch
from elision.export import gpt2
from elision.export.reading import read_folder, write_checkpoint
from elision.export.writing import write_folder
from elision.generation.decode import generate_ids
from elision.generation.decoding import Decoding
from elision.text.tokenizer import Tokenizer
from tests import tiny
from tests.parity import reference

pytestmark = pytest.mark.parity


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return tiny.tokenizer(tiny.BYTES)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("kind", [transformers.GPT2LMHeadModel, transformers.GPT2Model])
def test_imported_logits_equal_those_of_transformers(kind: type, dtype: torch.dtype, tmp_path: Path) -> None:
    theirs = reference.gpt2(kind, dtype, n_inner=48)
    theirs.save_pretrained(tmp_path)
    ids = reference.token_ids(3, 11)
    real = torch.ones(3, 11, dtype=torch.bool)
    real[1, 7:] = False
    with torch.no_grad():
        output = theirs(ids, attention_mask=real.long())
        expected = output.logits if hasattr(output, "logits") else output.last_hidden_state @ theirs.wte.weight.T
    reference.assert_close(elision.load(tmp_path).logits(ids, visible=real)[real], expected[real])


def test_padding_on_the_left_changes_no_logits(tmp_path: Path) -> None:
    theirs = reference.gpt2(transformers.GPT2LMHeadModel)
    theirs.save_pretrained(tmp_path)
    ids = reference.token_ids(2, 9)
    real = torch.ones(2, 9, dtype=torch.bool)
    real[1, :4] = False
    positions = torch.stack([torch.arange(9), (torch.arange(9) - 4).clamp(min=0)])
    loaded = elision.load(tmp_path)
    logits = loaded.logits(ids, real)
    with torch.no_grad():
        expected = theirs(ids, attention_mask=real.long(), position_ids=positions).logits
    reference.assert_close(logits[real], expected[real])
    reference.assert_close(logits[1:, 4:], loaded.logits(ids[1:, 4:]))


def test_sight_given_for_each_pair_of_tokens_never_reaches_ahead(tmp_path: Path) -> None:
    reference.gpt2(transformers.GPT2LMHeadModel).save_pretrained(tmp_path)
    loaded = elision.load(tmp_path)
    ids = reference.token_ids(1, 6)
    everything = torch.ones(1, 6, 6, dtype=torch.bool)
    reference.assert_close(loaded.logits(ids, everything), loaded.logits(ids))
    blind = everything.clone()
    blind[0, 3, :4] = False
    assert torch.isfinite(loaded.logits(ids, blind)).all()


def test_loss_and_every_gradient_equal_those_of_transformers(tmp_path: Path) -> None:
    theirs = reference.gpt2(transformers.GPT2LMHeadModel, torch.float64)
    theirs.save_pretrained(tmp_path)
    ids = reference.token_ids(3, 11)
    # Its own loss is rounded to float32, even in a float64 model.
    expected = torch.nn.functional.cross_entropy(theirs(ids).logits[:, :-1].flatten(0, 1), ids[:, 1:].flatten())
    assert float(theirs(ids, labels=ids).loss.detach()) == pytest.approx(float(expected.detach()), rel=1e-5)
    expected.backward()

    loaded = elision.load(tmp_path)
    targets = torch.cat([ids[:, 1:], torch.full((3, 1), -100)], 1)
    batch = Batch(
        inputs=ids,
        positions=torch.arange(11).expand(3, 11),
        doc_ids=torch.ones(3, 11, dtype=torch.long),
        targets=targets,
        target_at=(targets.flatten() != -100).nonzero()[:, 0],
        summary_at=torch.arange(3) * 11 + 10,
        num_targets=30,
        num_examples=3,
        num_tokens=33,
        whole_rows=True,
    )
    terms, _ = loaded.model(batch)
    loss = terms["clm"].sum / terms["clm"].count
    loss.backward()
    reference.assert_close(loss.detach(), expected.detach())
    table = gpt2.key_map(loaded.recipe.backbone, ("clm",))
    gradients = table.to_theirs({name: value.grad for name, value in loaded.model.named_parameters()})
    names = dict(theirs.named_parameters())
    assert gradients.keys() == names.keys()
    for name, gradient in gradients.items():
        reference.assert_close(gradient, names[name].grad)
        assert gradient.abs().max() > 0, name


def test_export_of_an_import_is_the_identity(tokenizer: Tokenizer, tmp_path: Path) -> None:
    theirs = reference.gpt2(transformers.GPT2LMHeadModel, n_inner=48, vocab_size=tokenizer.vocabulary.size)
    theirs.save_pretrained(tmp_path / "theirs")
    tokenizer.save(tmp_path / "theirs")
    write_checkpoint(read_folder(tmp_path / "theirs"), tmp_path / "ours")
    assert write_folder(elision.load(tmp_path / "ours"), tmp_path / "back") == "GPT2LMHeadModel"
    before, after = (load_file(tmp_path / name / "model.safetensors") for name in ("theirs", "back"))
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_auto_class_loads_an_export_with_equal_logits(tokenizer: Tokenizer, tmp_path: Path) -> None:
    reference.save_checkpoint(tmp_path / "ours", tiny.recipe("gpt2-tiny"), tokenizer)
    ours = elision.load(tmp_path / "ours")
    assert write_folder(ours, tmp_path / "out") == "GPT2LMHeadModel"
    theirs, report = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "out", output_loading_info=True)
    assert not report["missing_keys"] and not report["unexpected_keys"], report
    ids = reference.token_ids(2, 11)
    with torch.no_grad():
        expected = theirs(ids).logits
    reference.assert_close(ours.logits(ids), expected)
    assert theirs.generation_config.eos_token_id == tokenizer.vocabulary.eos
    names = transformers.AutoTokenizer.from_pretrained(tmp_path / "out")
    for text in ("ba do kilume nora.", " 한국어 ünï 🙂\n\n", ""):
        assert names(text)["input_ids"] == tokenizer.encode(text)


def test_old_files_without_prefix_and_with_mask_buffers_are_read(tmp_path: Path) -> None:
    theirs = reference.gpt2(transformers.GPT2LMHeadModel)
    theirs.config.save_pretrained(tmp_path)
    old = {name.removeprefix("transformer."): value for name, value in theirs.state_dict().items()}
    for n in range(2):
        old[f"h.{n}.attn.bias"] = torch.ones(1, 1, 20, 20).tril()
        old[f"h.{n}.attn.masked_bias"] = torch.tensor(-1e4)
    assert "lm_head.weight" in old
    torch.save(old, tmp_path / "pytorch_model.bin")
    ids = reference.token_ids(2, 11)
    with torch.no_grad():
        expected = theirs(ids).logits
    reference.assert_close(elision.load(tmp_path).logits(ids), expected)


@pytest.mark.parametrize("cache", [True, False])
def test_greedy_generation_equals_that_of_transformers_token_for_token(cache: bool, tmp_path: Path) -> None:
    theirs = reference.gpt2(transformers.GPT2LMHeadModel, torch.float64)
    theirs.save_pretrained(tmp_path)
    model = elision.load(tmp_path).model
    seen = set()
    for seed in range(5):
        prompt = reference.token_ids(1, 4, seed)
        expected = theirs.generate(
            prompt, attention_mask=torch.ones_like(prompt), max_new_tokens=16, do_sample=False, eos_token_id=None
        )
        ours = list(generate_ids(model, prompt[0].tolist(), Decoding(num_tokens=16), cache=cache))
        assert ours == expected[0, 4:].tolist()
        seen |= set(ours)
    assert len(seen) > 5, "the comparison needs texts that differ"


def test_packed_rows_give_the_logits_of_their_texts_alone(tmp_path: Path) -> None:
    reference.gpt2(transformers.GPT2LMHeadModel).save_pretrained(tmp_path)
    loaded = elision.load(tmp_path)
    ids = reference.token_ids(1, 12)
    batch, _ = loaded._batch(ids, None, None, torch.tensor([[0, 1, 2, 3, 4, 0, 1, 2, 3, 4, 5, 6]]))
    batch.doc_ids, batch.whole_rows = torch.tensor([[1] * 5 + [2] * 7]), False
    with torch.no_grad():
        logits = loaded.model.logits(batch)
    reference.assert_close(logits[:, :5], loaded.logits(ids[:, :5]))
    reference.assert_close(logits[:, 5:], loaded.logits(ids[:, 5:]))
