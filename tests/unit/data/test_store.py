import json
import pickle
import shutil

import numpy as np
import pyarrow as pa
import pytest

from elision.data.selection import Selection
from elision.data.store import Store
from elision.errors import InputError
from elision.text.prepare import prepare_texts
from elision.text.sentences import split_sentences
from elision.text.tokenizer import ByteLevelBPE, WordPiece

TEXTS = [
    f"Document number {i} is here. It has {i % 7} parts!" + " And one more sentence." * (i % 4) for i in range(120)
]
SPEC = ByteLevelBPE(400)


@pytest.fixture(scope="module")
def tokenizer():
    return SPEC.train(TEXTS)


@pytest.fixture
def store(tmp_path, tokenizer):
    languages = [("en", "ko", None)[i % 3] for i in range(len(TEXTS))]
    return prepare_texts(TEXTS, tmp_path / "store", tokenizer, languages=languages, validation=0.2, shard_tokens=400)


def test_every_document_and_sentence_stands_where_the_offsets_say(store, tokenizer):
    expected = {text: [len(ids) for ids in tokenizer.encode_batch(split_sentences(text))] for text in TEXTS}
    found = []
    for name in ("train", "validation"):
        split = store.split(name)
        assert len(split._shards) > 1
        for i in range(split.num_documents):
            text = store.tokenizer.decode(split.document(i))
            found.append(text)
            first, last = split.document_sentences[i], split.document_sentences[i + 1]
            assert np.diff(split.sentence_starts[first : last + 1]).tolist() == expected[text]
            assert split.sentence_starts[first] == split.document_starts[i]
        assert split.document_starts[-1] == split.sentence_starts[-1] == split.num_tokens
        assert split.document_sentences[-1] == split.num_sentences == len(split.sentence_starts) - 1
        assert split.num_bytes == sum(len(t.encode()) for t in found[-split.num_documents :])
    assert sorted(found) == sorted(TEXTS)


def test_tokens_crosses_shards_and_is_a_view_inside_one(store):
    split = store.split("train")
    whole = np.concatenate([split.document(i) for i in range(split.num_documents)])
    assert np.array_equal(split.tokens(0, split.num_tokens), whole)
    edge = split._token_starts[1]
    assert np.array_equal(split.tokens(edge - 3, edge + 3), whole[edge - 3 : edge + 3])
    assert np.array_equal(
        split.tokens(edge - 3, split._token_starts[2] + 3), whole[edge - 3 : split._token_starts[2] + 3]
    )
    inside = split.tokens(edge, edge + 5)
    assert inside.base is not None
    assert not inside.flags.owndata
    assert len(split.tokens(split.num_tokens, split.num_tokens)) == 0
    assert len(split.tokens(edge, edge)) == 0


def test_languages_stay_with_their_documents(store):
    assert store.languages == ["en", "ko"]
    split = store.split("train")
    for i in range(split.num_documents):
        number = TEXTS.index(store.tokenizer.decode(split.document(i)))
        assert split.language(i) == ("en", "ko", None)[number % 3]


def test_control_codes_stay_with_their_documents_and_may_be_missing(tmp_path, tokenizer):
    def code_of(number):
        return ("Books", None, "News", "Books")[number % 4]

    codes = [code_of(number) for number in range(len(TEXTS))]
    store = prepare_texts(TEXTS, tmp_path / "coded", tokenizer, codes=codes, validation=0.2, shard_tokens=400)
    assert store.codes == ["Books", "News"]
    for name in store.splits:
        split = store.split(name)
        for i, number in enumerate(split.code_numbers.tolist()):
            said = code_of(TEXTS.index(store.tokenizer.decode(split.document(i))))
            assert (None if number < 0 else split.codes[number]) == said
        chosen = Selection(split, np.arange(1, split.num_documents, 3))
        assert chosen.code_numbers.tolist() == split.code_numbers[1::3].tolist() and chosen.codes == split.codes


def test_shards_with_and_without_codes_lie_in_one_store(tmp_path, tokenizer):
    codes = [None] * 80 + ["News"] * 40
    store = prepare_texts(TEXTS, tmp_path / "coded", tokenizer, codes=codes, validation=0, shard_tokens=400)
    columns = [pa.ipc.open_file(str(file)).read_all().column_names for file in sorted(store.path.glob("*.arrow"))]
    assert len({"code" in names for names in columns}) == 2
    assert (store.split("train").code_numbers >= 0).sum() == 40


def test_without_codes_a_store_is_what_it_was_before_there_were_any(store):
    # As a version writes it that knows of no codes: neither a column nor an entry of the manifest.
    assert "codes" not in store.manifest
    assert "code" not in pa.ipc.open_file(str(store.path / "train-00000.arrow")).read_all().column_names
    assert store.codes == [] and set(store.split("train").code_numbers) == {-1}


def test_any_arrow_reader_opens_a_shard(store, tokenizer):
    table = pa.ipc.open_file(str(store.path / "train-00000.arrow")).read_all()
    assert table.column_names == ["ids", "sentences", "language", "id", "num_bytes", "hash"]
    assert table.schema.field("ids").type == pa.large_list(pa.uint16())
    assert tokenizer.decode(table["ids"][0].as_py()) in TEXTS


def test_ids_take_two_bytes_up_to_65536_symbols_and_four_above(tmp_path, tokenizer):
    raw = tokenizer.raw.from_str(tokenizer.raw.to_str())
    raw.add_tokens([f"<new{i}>" for i in range(65536 - raw.get_vocab_size())])
    at_limit = type(tokenizer)(raw, tokenizer.roles)
    assert prepare_texts(TEXTS, tmp_path / "a", at_limit).split("train").tokens(0, 2).dtype == np.uint16
    raw = raw.from_str(raw.to_str())
    raw.add_tokens(["<one more>"])
    above = prepare_texts([*TEXTS, "a <one more> b"], tmp_path / "b", type(tokenizer)(raw, tokenizer.roles))
    split = above.split("train")
    assert split.tokens(0, 2).dtype == np.uint32
    assert 65536 in {int(split.tokens(0, split.num_tokens).max()), int(above.split("validation").tokens(0, 9).max())}


def test_a_document_keeps_its_split_whatever_the_order(tmp_path, tokenizer):
    forward = prepare_texts(TEXTS, tmp_path / "a", tokenizer, validation=0.3)
    backward = prepare_texts([*TEXTS[::-1], "new."], tmp_path / "b", tokenizer, validation=0.3)
    held = [
        {s.tokenizer.decode(p.document(i)) for i in range(p.num_documents)}
        for s in (forward, backward)
        for p in [s.split("validation")]
    ]
    assert held[0] == held[1] - {"new."}
    assert 15 < len(held[0]) < 60


def test_two_documents_are_enough_for_two_splits(tmp_path, tokenizer):
    store = prepare_texts(TEXTS[:2], tmp_path / "a", tokenizer, validation=0.001)
    assert [store.split(name).num_documents for name in ("train", "validation")] == [1, 1]
    store = prepare_texts(TEXTS[:9], tmp_path / "b", tokenizer, validation=0.0001, shard_tokens=10)
    assert [store.split(name).num_documents for name in ("train", "validation")] == [8, 1]
    assert prepare_texts(TEXTS[:9], tmp_path / "c", tokenizer, validation=0.0).splits == ["train"]


def test_a_split_travels_to_another_process(store):
    split = pickle.loads(pickle.dumps(store.split("train")))
    assert np.array_equal(split.document(3), store.split("train").document(3))


def test_an_unknown_split_is_refused_with_the_splits_there_are(store):
    with pytest.raises(InputError, match=r"no split 'valid'\. Did you mean 'validation'.* It has: train, validation"):
        store.split("valid")


def test_a_damaged_shard_is_named(store):
    shard = store.path / "train-00001.arrow"
    data = shard.read_bytes()
    shard.write_bytes(data[:-10])
    with pytest.raises(InputError, match=r"train-00001\.arrow is damaged: it is truncated"):
        Store.open(store.path)
    shard.write_bytes(b"\0" * len(data))
    with pytest.raises(InputError, match=r"train-00001\.arrow is damaged: it is not a whole Arrow file"):
        split = Store.open(store.path).split("train")
        split.tokens(0, split.num_tokens)
    with pytest.raises(InputError, match=r"train-00001\.arrow is damaged: its content"):
        Store.open(store.path).verify()
    shard.unlink()
    with pytest.raises(InputError, match=r"train-00001\.arrow is damaged: it is missing"):
        Store.open(store.path)


def test_a_foreign_file_is_named(store, tmp_path):
    shutil.copy(store.path / "train-00000.arrow", store.path / "train-00099.arrow")
    with pytest.raises(InputError, match=r"train-00099\.arrow does not belong to this store"):
        Store.open(store.path)


def test_a_shard_of_another_tokenizer_is_named(store, tmp_path):
    other = WordPiece(300).train(TEXTS)
    foreign = prepare_texts(TEXTS, tmp_path / "other", other, validation=0.2, shard_tokens=400)
    shutil.copy(foreign.path / "train-00000.arrow", store.path / "train-00000.arrow")
    manifest = json.loads((store.path / "manifest.json").read_text())
    manifest["splits"]["train"]["shards"][0]["num_file_bytes"] = (store.path / "train-00000.arrow").stat().st_size
    (store.path / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(
        InputError, match=r"train-00000\.arrow is damaged: it comes from a store with another tokenizer"
    ):
        Store.open(store.path).split("train").tokens(0, 5)


def test_a_store_of_another_tokenizer_is_refused_by_both_fingerprints(store):
    other = WordPiece(300).train(TEXTS).fingerprint
    with pytest.raises(InputError, match=f"{store.tokenizer_fingerprint[:16]}.*{other[:16]}"):
        Store.open(store.path, expect_tokenizer=other)
    assert Store.open(store.path, expect_tokenizer=store.tokenizer_fingerprint).fingerprint == store.fingerprint


def test_what_is_no_finished_store_is_refused(tmp_path, store):
    with pytest.raises(InputError, match=r"does not exist.*elision prepare"):
        Store.open(tmp_path / "absent")
    with pytest.raises(InputError, match="is no token store"):
        Store.open(tmp_path)
    manifest = store.manifest | {"elision_store": 99}
    (store.path / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(InputError, match="has format 99"):
        Store.open(store.path)
    (store.path / "manifest.json").unlink()
    (store.path / "journal.json").write_text("{}")
    with pytest.raises(InputError, match=r"unfinished.*Run the same command again"):
        Store.open(store.path)


def test_an_edited_tokenizer_is_refused(store):
    ByteLevelBPE(300).train(TEXTS).save(store.path / "tokenizer")
    with pytest.raises(InputError, match="changed after the store was made"):
        _ = Store.open(store.path).tokenizer
