"""What BART, mBART, BlenderBot and Meena read and write, and how large they are."""

from collections.abc import Callable

import pytest
import torch

from elision import recipes
from elision.data.batch import Batch
from elision.data.store import Store
from elision.model.position import LearnedPositions
from elision.recipe import Recipe
from tests import tiny

StoreOf = Callable[[Recipe], Store]


def read_and_written(name: str, store_of: StoreOf) -> tuple[Batch, Store, list[tuple[list[int], list[int], list[int]]]]:
    """A batch; the store; of every example what is read, what the decoder reads and what it is to write."""
    recipe = tiny.recipe(name)
    store = store_of(recipe)
    (batch,) = tiny.loader(recipe, store, packing=False).microbatches(0)
    rows = []
    for row in range(len(batch.inputs)):
        real, written = batch.doc_ids[row] != 0, batch.decoder_doc_ids[row] != 0
        rows.append(
            (
                batch.inputs[row][real].tolist(),
                batch.decoder_inputs[row][written].tolist(),
                batch.targets[row][written].tolist(),
            )
        )
    return batch, store, rows


def test_barts_decoder_begins_with_the_end_writes_the_beginning_first_and_every_token_counts(store_of: StoreOf) -> None:
    batch, store, rows = read_and_written("bart-tiny", store_of)
    vocabulary = store.tokenizer.vocabulary
    for read, given, wanted in rows:
        assert given[0] == vocabulary.eos and wanted[0] == vocabulary.bos and wanted[-1] == vocabulary.eos
        assert given[1:] == wanted[:-1]
        assert read[0] == vocabulary.bos and read[-1] == vocabulary.eos
        # One block, no separators within.
        assert wanted.count(vocabulary.eos) == 1
        assert vocabulary.mask not in wanted
    assert batch.num_targets == batch.num_decoder_tokens == sum(len(wanted) for _, _, wanted in rows)
    assert any(vocabulary.mask in read for read, _, _ in rows)


def test_mbarts_decoder_begins_with_the_language_that_its_text_ends_with(store_of: StoreOf) -> None:
    batch, store, rows = read_and_written("mbart-tiny", store_of)
    vocabulary = store.tokenizer.vocabulary
    languages = {vocabulary.symbols["aa_XX"], vocabulary.symbols["bb_XX"]}
    for read, given, wanted in rows:
        assert given[0] == wanted[-1] == read[-1] and given[0] in languages
        # Every sentence has its end, the last one too.
        assert wanted[-2] == vocabulary.eos and wanted[0] == vocabulary.bos
    assert {wanted[-1] for _, _, wanted in rows} <= languages
    assert batch.num_targets == batch.num_decoder_tokens


@pytest.mark.parametrize("name", ["blenderbot-tiny", "meena-tiny"])
def test_chatbots_read_a_context_and_write_a_reply_that_begins_with_the_start_symbol(
    name: str, store_of: StoreOf
) -> None:
    _, store, rows = read_and_written(name, store_of)
    vocabulary = store.tokenizer.vocabulary
    for read, given, wanted in rows:
        assert given[0] == vocabulary.bos and given[1:] == wanted[:-1]
        assert read[-1] == wanted[-1] == vocabulary.eos and vocabulary.bos not in wanted
        # The texts of the tests are translations of each other: other words, nothing masked.
        assert vocabulary.mask not in read


@pytest.mark.parametrize(
    ("name", "layers", "width", "count"),
    [
        ("bart-base", (6, 6), 768, 139_420_416),
        ("bart-large", (12, 12), 1024, 406_291_456),
        ("mbart-large", (12, 12), 1024, 610_851_840),
        ("blenderbot-small", (8, 8), 512, 87_511_040),
        ("blenderbot-large", (2, 24), 2560, 2_695_613_440),
        ("blenderbot-xl", (4, 32), 4096, 9_430_761_472),
        ("meena-large", (2, 26), 2560, 2_905_896_960),
    ],
)
def test_sizes(name: str, layers: tuple[int, int], width: int, count: int) -> None:
    recipe = recipes.get(name)
    backbone = recipe.backbone
    assert (backbone.encoder.num_layers, backbone.decoder.num_layers) == layers and backbone.hidden_size == width
    with torch.device("meta"):
        model = backbone.build(recipe.tokenizer.vocab_size)
    assert sum(parameter.numel() for parameter in model.parameters()) == count


def test_vocabularies_are_those_of_the_papers() -> None:
    sizes = {name: recipes.get(name).tokenizer.vocab_size for name in ("bart-large", "mbart-large", "blenderbot-large")}
    assert sizes == {"bart-large": 50_265, "mbart-large": 250_027, "blenderbot-large": 8008}
    # 25 languages beside the pieces, <mask> as the last symbol.
    assert len(recipes.get("mbart-large").tokenizer.extra_special_tokens) == 25


def test_mbart_is_bart_with_norms_before_the_layers_and_after_the_last_and_larger_embeddings() -> None:
    ours, theirs = recipes.get("mbart-large").backbone, recipes.get("bart-large").backbone
    for side in ("encoder", "decoder"):
        one, other = vars(getattr(ours, side)), vars(getattr(theirs, side))
        changed = {name: one[name] for name in one if one[name] != other[name]}
        assert changed == {"norm": "pre", "final_norm": True, "scale_embeddings": True}
        assert getattr(ours, side).positions == LearnedPositions(1024, offset=2)
    noise, other = recipes.get("mbart-large").noise, recipes.get("bart-large").noise
    assert (noise.infill, noise.mean_words) == (0.35, 3.5) and (other.infill, other.mean_words) == (0.3, 3.0)
    assert noise.permute_sentences == other.permute_sentences == 1.0
    assert recipes.get("mbart-large").mixing.alpha == 0.7


def test_meenas_rate_is_a_hundredth_for_ten_thousand_steps_and_then_falls_with_the_root() -> None:
    train = recipes.get("meena-large").train

    def rate(step: int) -> float:
        return train.optimizer.learning_rate * train.schedule.share(step, train.steps)

    assert rate(0) == rate(9_999) == pytest.approx(0.01)
    assert rate(40_000) == pytest.approx(0.005, rel=1e-3)
