import dataclasses

import numpy as np
import pytest
import torch

from elision import recipes
from elision.data.batch import collate
from elision.data.example import NO_TARGET, Example
from elision.data.loader import Loader
from elision.model.encoder_decoder import EncoderDecoder
from elision.show.explain import Fate, explain, fates, who_sees_whom
from elision.show.source import explain_split, split_of_texts
from elision.text.tokenizer import Tokenizer, WordPiece
from tests import tiny

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "the", "cat", "sat", "on", "mat", "."]
CLS, SEP, MASK, THE, CAT, SAT, ON, MAT = 2, 3, 4, 5, 6, 7, 8, 9
NO = NO_TARGET


@pytest.fixture(scope="module")
def tokenizer():
    import tokenizers

    raw = tokenizers.Tokenizer(tokenizers.models.WordPiece({w: i for i, w in enumerate(WORDS)}, unk_token="[UNK]"))
    raw.pre_tokenizer = tokenizers.pre_tokenizers.BertPreTokenizer()
    roles = {"pad": "[PAD]", "unk": "[UNK]", "cls": "[CLS]", "sep": "[SEP]", "mask": "[MASK]"}
    return Tokenizer(raw, roles)


def example(inputs, targets=None, **fields):
    special = np.isin(inputs, [CLS, SEP])
    targets = None if targets is None else np.array(targets)
    return Example(np.array(inputs), special, targets=targets, **fields)


def test_fates_tell_masked_random_kept_and_untouched_apart(tokenizer):
    before = example([CLS, THE, CAT, SAT, ON, MAT, SEP])
    after = example([CLS, MASK, CAT, THE, ON, MAT, SEP], [NO, THE, NO, SAT, ON, NO, NO])
    U, M, R, K = Fate.UNTOUCHED, Fate.MASKED, Fate.REPLACED, Fate.KEPT
    assert fates(before, after, tokenizer.vocabulary) == [U, M, U, R, K, U, U]


def test_a_masked_pair_is_explained_exactly(tokenizer):
    types = np.array([0, 0, 0, 0, 1, 1, 1])
    before = example([CLS, THE, CAT, SEP, SAT, ON, SEP], type_ids=types, label=1)
    after = example([CLS, THE, MASK, SEP, SAT, MAT, SEP], [NO, THE, CAT, NO, NO, ON, NO], type_ids=types, label=1)
    shown = explain(recipes.get("bert-tiny"), [before], [after], tokenizer)
    assert [token.piece for token in shown.tokens] == ["[CLS]", "the", "[MASK]", "[SEP]", "sat", "mat", "[SEP]"]
    assert [token.target for token in shown.tokens] == [None, "the", "cat", None, None, "on", None]
    assert [token.original for token in shown.tokens][2:6] == [("cat",), ("[SEP]",), ("sat",), ("on",)]
    assert [token.special for token in shown.tokens] == [True, False, False, True, False, False, True]
    assert [token.segment for token in shown.tokens] == [0, 0, 0, 0, 1, 1, 1]
    assert [token.position for token in shown.tokens] == [0, 1, 2, 3, 4, 5, 6]
    assert shown.restores == "itself" and not shown.changes_elsewhere
    assert shown.visible.all()
    assert shown.labels == ("Does B follow A? No: B was drawn from elsewhere (label 1).",)
    assert shown.sentences[0] == (
        "3 of 7 tokens (43%) are to be restored: 1 hidden by a mask, 1 replaced by a random token, "
        "1 left in place, but asked for all the same."
    )


def test_a_causal_example_shows_the_next_token_and_a_triangle(tokenizer):
    before = example([THE, THE, CAT, SAT])
    after = example([THE, THE, CAT], [THE, CAT, SAT])
    shown = explain(recipes.get("gpt2-tiny"), [before], [after], tokenizer)
    assert [token.target for token in shown.tokens] == ["the", "cat", "sat"]
    assert {token.fate for token in shown.tokens} == {Fate.UNTOUCHED}
    assert shown.restores == "next"
    assert shown.visible.tolist() == [[True, False, False], [True, True, False], [True, True, True]]
    assert shown.sentences[1] == "Each place sees itself and what precedes it, never what follows."


def test_packed_examples_keep_their_own_labels_documents_and_positions(tokenizer):
    short = example([THE, CAT], [NO, NO], label=0)
    long = example([THE, MASK, SAT], [NO, CAT, NO], label=1)
    shown = explain(recipes.get("bert-tiny"), [example([THE, CAT]), example([THE, CAT, SAT])], [short, long], tokenizer)
    # Packing lays the longer one first.
    assert [token.document for token in shown.tokens] == [1, 1, 1, 2, 2]
    assert [token.example for token in shown.tokens] == [0, 0, 0, 1, 1]
    assert [token.position for token in shown.tokens] == [0, 1, 2, 0, 1]
    assert [token.fate for token in shown.tokens][1] is Fate.MASKED
    assert [label.split(" (")[1] for label in shown.labels] == ["label 1).", "label 0)."]
    blocks = np.zeros((5, 5), bool)
    blocks[:3, :3] = blocks[3:, 3:] = True
    assert (shown.visible == blocks).all()
    assert shown.sentences[-1].endswith("The 2 documents do not see each other.")


def test_documents_within_a_causal_example_do_not_see_each_other(tokenizer):
    documents = np.array([1, 1, 2])
    after = example([THE, CAT, SAT], [CAT, SAT, ON], doc_ids=documents)
    shown = explain(recipes.get("gpt2-tiny"), [example([THE, CAT, SAT, ON])], [after], tokenizer)
    assert shown.visible.tolist() == [[True, False, False], [True, True, False], [False, False, True]]
    assert [token.position for token in shown.tokens] == [0, 1, 0]


def test_a_mask_that_stands_for_a_span_names_all_of_it(tokenizer):
    before = example([THE, CAT, SAT, ON, MAT])
    after = example([THE, MASK, MAT], [NO, NO, NO])
    shown = explain(recipes.get("bert-tiny"), [before], [after], tokenizer)
    assert shown.tokens[1].original == ("cat", "sat", "on") and shown.tokens[1].fate is Fate.MASKED
    assert [token.fate for token in shown.tokens] == [Fate.UNTOUCHED, Fate.MASKED, Fate.UNTOUCHED]
    assert shown.changes_elsewhere


def test_a_token_removed_without_a_trace_is_named_where_it_stood(tokenizer):
    shown = explain(recipes.get("bert-tiny"), [example([THE, CAT, SAT])], [example([THE, SAT], [NO, NO])], tokenizer)
    assert shown.tokens[1].dropped == ("cat",) and shown.tokens[1].original == ("sat",)
    assert shown.sentences[0] == "None of the 2 tokens is to be restored."


def test_a_label_of_another_segmenter_is_told_as_it_is(tokenizer):
    after = example([THE, CAT], [CAT, SAT], label=3)
    shown = explain(recipes.get("gpt2-tiny"), [example([THE, CAT, SAT])], [after], tokenizer)
    assert shown.labels == ("The label of the whole is 3.",)


@pytest.mark.parametrize("name", [name for name in recipes.names() if name.endswith("-tiny")])
def test_the_picture_is_what_the_model_does(name):
    """Changing one token must move the states of exactly those places that are said to see it."""
    recipe = recipes.get(name)
    backbone = tiny.shrunk(recipe.backbone, num_layers=2, hidden_size=16, num_heads=2, feedforward_size=16)
    torch.manual_seed(0)
    model = backbone.build(vocab_size=20).double().eval()
    model.read_symbols([f"w{number}" for number in range(20)])
    examples = [example([5, 6, 7, 8], [NO] * 4), example([9, 5, 6], [NO] * 3)]
    two_sided = isinstance(backbone, EncoderDecoder)
    if backbone.visibility == "prefix":
        examples = [dataclasses.replace(each, prefix=np.arange(len(each)) < 2) for each in examples]
    if two_sided:
        examples = [
            example([5, 6, 7, 8], [5, 6], decoder_inputs=np.array([9, 5]), unseen=np.array([False, True, False, True])),
            example([9, 5, 6], [7, 8, 9], decoder_inputs=np.array([6, 7, 8]), unseen=np.array([True, False, False])),
        ]
    batch = collate(examples, pad_id=0, row_length=7, decoder_row_length=5)
    visible = who_sees_whom(backbone, batch)

    assert len(visible) == (12 if two_sided else 7)

    def written(batch, source):
        return model.decoder(batch.decoder_side, source=source, source_visible=backbone.source_visible(batch)).hidden[0]

    with torch.no_grad():
        reader = model.encoder if two_sided else model
        source = reader(batch).hidden
        for seen in range(7):
            inputs = batch.inputs.index_fill(1, torch.tensor(seen), 11)
            moved = (reader(dataclasses.replace(batch, inputs=inputs)).hidden != source)[0].any(-1)
            assert moved.tolist() == visible[:7, seen].tolist()
            if two_sided:
                # One state alone: what others have seen of the token reaches the decoder through theirs.
                shaken = source.index_add(1, torch.tensor(seen), torch.ones(1, 1, 16).double())
                moved = (written(batch, shaken) != written(batch, source)).any(-1)
                assert moved.tolist() == visible[7:, seen].tolist()
        for seen in range(len(visible) - 7):
            inputs = batch.decoder_inputs.index_fill(1, torch.tensor(seen), 11)
            moved = (written(dataclasses.replace(batch, decoder_inputs=inputs), source) != written(batch, source)).any(
                -1
            )
            assert not visible[:7, 7 + seen].any() and moved.tolist() == visible[7:, 7 + seen].tolist()


def test_what_is_shown_is_what_training_reads():
    texts = ["The cat sat on the mat. It was a cold morning. Nobody had lit the fire.", "Dogs bark. Cats do not."]
    tokenizer = WordPiece(vocab_size=200).train(texts * 2)
    recipe = recipes.get("bert-tiny")
    with split_of_texts(texts, tokenizer) as split:
        plan = recipe.segmenter.plan(split, tokenizer.vocabulary, 7)
        loader = Loader(plan, recipe.noise, tokenizer.vocabulary, 7, len(plan), 1, 128)
        for batch in loader.microbatches(0):
            shown = explain_split(recipe, split, tokenizer, seed=7, index=batch.examples[0])
            length = batch.num_tokens
            assert [t.piece for t in shown.tokens] == tokenizer.tokens(batch.inputs[0, :length].tolist())
            assert sum(t.target is not None for t in shown.tokens) == batch.num_targets


def test_a_window_is_part_of_who_sees_whom() -> None:
    backbone = dataclasses.replace(recipes.get("gpt2-tiny").backbone, windows=(None, 3))
    batch = collate([Example(np.arange(10, 16), np.zeros(6, bool))], pad_id=0)
    seen = who_sees_whom(backbone, batch)
    assert seen[5].tolist() == [False, False, False, True, True, True]
    assert seen[1].tolist() == [True, True, False, False, False, False]
