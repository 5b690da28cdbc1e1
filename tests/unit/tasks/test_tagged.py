"""Tagged texts as they are read, and how tags are measured."""

import random
from pathlib import Path

import pytest
from seqeval.metrics import f1_score
from seqeval.metrics.sequence_labeling import get_entities

from elision.errors import InputError
from elision.tasks.tag_scores import check_tag_metric, entities, mark_entities, measure_tags
from elision.tasks.tagged import read_plain, read_tagged, split

CONLL = """-DOCSTART- -X- O O

EU NNP I-NP I-ORG
rejects VBZ I-VP O

# sent_id = 2
Peter\tNNP\tI-NP\tB-PER
"""


def test_columns_are_read_with_documents_marks_comments_and_either_separator(tmp_path: Path) -> None:
    path = tmp_path / "a.conll"
    path.write_text(CONLL)
    rows, unit = read_tagged(str(path))
    assert unit == "words"
    assert [(row.text, row.tokens, row.tags) for row in rows] == [
        ("EU rejects", ["EU", "rejects"], ("I-ORG", "O")),
        ("Peter", ["Peter"], ("B-PER",)),
    ]
    assert rows[1].where == f"{path}:7"
    assert [row.tags for row in read_tagged(str(path), tag_column=1)[0]] == [("NNP", "VBZ"), ("NNP",)]


def test_characters_with_spaces_among_them_keep_the_text_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "ko.tsv"
    path.write_text("## id\t<경찰:OG>은 또\n경\tB-OG\n찰\tI-OG\n은\tO\n \tO\n또\tO\n\n", encoding="utf-8")
    (row,), unit = read_tagged(str(path))
    assert unit == "characters" and row.text == "경찰은 또" and row.tokens == list("경찰은 또")
    assert row.tags == ("B-OG", "I-OG", "O", "O", "O")


def test_json_lines_hold_lists_or_marked_spans(tmp_path: Path) -> None:
    lists, spans = tmp_path / "lists.jsonl", tmp_path / "spans.jsonl"
    lists.write_text('{"tokens": ["Ann", "ran"], "ner_tags": ["B-PER", "O"]}\n')
    spans.write_text(
        '{"text": "Ann ran", "entities": [{"start": 0, "end": 3, "label": "PER"}]}\n{"text": "no", "entities": []}\n'
    )
    (row,), unit = read_tagged(str(lists))
    assert (row.tokens, row.tags, unit) == (["Ann", "ran"], ("B-PER", "O"), "words")
    (first, second), unit = read_tagged(str(spans))
    assert unit == "characters" and first.tags == ("B-PER", "I-PER", "I-PER", "O", "O", "O", "O")
    assert second.tags == ("O", "O")


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("a.conll", "Ann B-PER\nran\n", r"a\.conll:2: 'ran' is no word with its tag"),
        (
            "b.jsonl",
            '{"tokens": ["Ann"], "tags": []}\n',
            r"b\.jsonl:1: tags must be as many as tokens: 0 tags for 1 words",
        ),
        ("c.jsonl", '{"tokens": ["Ann"]}\n', "which column holds the tags"),
        ("d.jsonl", '{"text": "Ann", "spans": [[0, 9, "X"]]}\n', "does not lie in the text"),
        ("e.jsonl", '{"text": "Ann", "spans": [[0, 2, "X"], [1, 3, "Y"]]}\n', "overlaps another"),
        ("f.conll", "\n\n", "holds no rows"),
    ],
)
def test_what_cannot_be_read_is_said_with_file_and_line(name: str, content: str, words: str, tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_text(content)
    with pytest.raises(InputError, match=words):
        read_tagged(str(path))


def test_plain_text_is_split_at_spaces_and_punctuation_around_words() -> None:
    assert split('He said: "U.S. men don\'t," (J. Doe).', "words").tokens == [
        "He", "said", ":", '"', "U.S.", "men", "don't", ",", '"', "(", "J.", "Doe", ")", ".",
    ]  # fmt: skip
    # Vowel signs belong to their word.
    assert split("नमस्ते दुनिया।", "words").tokens == ["नमस्ते", "दुनिया", "।"]
    assert split("한 글", "characters").tokens == ["한", " ", "글"]


def test_files_to_predict_may_be_plain_lines_columns_or_tables(tmp_path: Path) -> None:
    plain, columns, table = tmp_path / "a.txt", tmp_path / "eng.testa", tmp_path / "c.jsonl"
    plain.write_text("Ann ran.\n\nBob sat down there.\n")
    columns.write_text(CONLL.replace("\t", " "))
    table.write_text('{"tokens": ["Ann", "ran"]}\n{"text": "Bob sat."}\n')
    assert [row.tokens for row in read_plain(str(plain), "words")] == [
        ["Ann", "ran", "."],
        ["Bob", "sat", "down", "there", "."],
    ]
    assert [row.tokens for row in read_plain(str(columns), "words")] == [["EU", "rejects"], ["Peter"]]
    assert [row.tokens for row in read_plain(str(table), "words")] == [["Ann", "ran"], ["Bob", "sat", "."]]


def test_entities_are_those_of_seqeval_in_every_scheme() -> None:
    rng = random.Random(0)
    tags = ["O", *(f"{mark}-{kind}" for mark in "BIES" for kind in ("PER", "LOC"))]
    for _ in range(500):
        drawn = rng.choices(tags, k=rng.randint(1, 9))
        ours = [(each.type, each.first, each.last) for each in entities(drawn)]
        assert ours == get_entities(drawn), drawn


def test_measures_are_those_of_seqeval() -> None:
    rng = random.Random(1)
    tags = ["O", "B-PER", "I-PER", "B-LOC", "I-LOC"]
    truth = [rng.choices(tags, k=8) for _ in range(20)]
    predicted = [[tag if rng.random() < 0.7 else rng.choice(tags) for tag in row] for row in truth]
    values, lines = measure_tags(truth, predicted, tags)
    assert values["f1"] == pytest.approx(f1_score(truth, predicted)) and 0 < values["f1"] < 1
    assert sum(line.num_rows for line in lines) == sum(len(get_entities(row)) for row in truth)
    assert measure_tags([["O"]], [["O"]], tags)[0]["f1"] == 0.0


def test_which_tags_mark_entities_and_what_measures_they_have() -> None:
    assert mark_entities(["O", "B-PER", "I-PER"]) and not mark_entities(["NOUN", "O"]) and not mark_entities(["O"])
    assert check_tag_metric(None, ["O", "B-X"]) == "f1" and check_tag_metric(None, ["NOUN", "VERB"]) == "accuracy"
    with pytest.raises(InputError, match="these tags have accuracy, macro_f1, weighted_f1"):
        check_tag_metric("f1", ["NOUN", "VERB"])
