import numpy as np
import pytest

from elision.errors import InputError
from elision.text.cleaning import Cleaning, Report
from elision.text.duplicates import SeenTable
from elision.text.readers import FileSource, Reading
from elision.text.sampling import sample_texts


def clean(text, where="f.txt:1", **rules):
    report = Report()
    result = Cleaning(**rules).clean(text, where, report)
    return result, {rule: n for rule, n in report.counts.items() if n}, report.invalid_at


def test_each_rule_changes_and_counts_and_can_be_switched_off():
    assert clean("cafe\u0301") == ("café", {"nfc_documents": 1}, [])
    assert clean("cafe\u0301", nfc=False) == ("cafe\u0301", {}, [])
    assert clean("a\x00b\x07\r\nc\u2028d") == ("ab\nc\nd", {"control_characters": 2}, [])
    assert clean("a\x00b", control_characters=False) == ("a\x00b", {}, [])
    assert clean("ab\n" + "x" * 20, max_line_characters=10) == ("ab", {"long_lines": 1}, [])
    assert clean("ab\n" + "x" * 20, max_line_characters=0) == ("ab\n" + "x" * 20, {}, [])
    assert clean(" \n ") == (None, {"empty_documents": 1}, [])


def test_hangul_and_joiners_stay_as_they_are():
    text = "한글 क्\u200dष می\u200cخواهم"
    assert clean(text) == (text, {}, [])


def test_invalid_utf8_is_replaced_skipped_or_refused_with_file_and_line(tmp_path):
    (tmp_path / "f.txt").write_bytes(b"good\nbad \xff\xfe here\n\nfine\n")
    first, second = FileSource(tmp_path / "f.txt", Reading()).documents(lambda n: None)
    text, counts, where = clean(first.text, first.where)
    assert text == "good\nbad \ufffd\ufffd here"
    assert counts == {"invalid_bytes": 2}
    assert where == [f"{tmp_path}/f.txt:2"]
    assert clean(first.text, first.where, invalid_utf8="skip")[:2] == (None, {"invalid_documents": 1})
    with pytest.raises(InputError, match=r"f\.txt:2 is not valid UTF-8"):
        clean(first.text, first.where, invalid_utf8="error")
    assert clean(second.text)[0] == "fine"


def test_report_survives_json():
    report = Report()
    report.add("long_lines", 3)
    report.invalid_at.append("f:1")
    assert Report.from_json(report.to_json()) == report


def test_seen_table_finds_copies_within_and_across_batches_and_growth(tmp_path):
    rng = np.random.default_rng(0)
    hashes = rng.integers(1, 40_000, 100_000).astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15) | np.uint64(1)
    known: set[int] = set()
    expected = [h in known or known.add(h) is not None for h in hashes.tolist()]
    table = SeenTable(tmp_path / "seen.table")
    found = []
    for start in range(0, len(hashes), 7_000):
        part = hashes[start : start + 7_000]
        found += table.is_copy(part, np.arange(start + 1, start + 1 + len(part))).tolist()
    assert found == expected
    assert table.path.stat().st_size > (1 << 16) * 16


def test_seen_table_gives_the_same_answers_when_work_is_repeated(tmp_path):
    hashes = np.array([5, 6, 5, 7, 6], dtype=np.uint64)
    numbers = np.arange(1, 6)
    first = SeenTable(tmp_path / "seen.table").is_copy(hashes, numbers).tolist()
    again = SeenTable(tmp_path / "seen.table").is_copy(hashes, numbers).tolist()
    assert first == again == [False, False, True, False, True]


def test_seen_table_survives_hashes_that_want_one_slot(tmp_path):
    table = SeenTable(tmp_path / "seen.table")
    same_slot = (np.arange(1, 50, dtype=np.uint64) << np.uint64(32)) | np.uint64(3)
    assert not table.is_copy(same_slot, np.arange(1, 50)).any()
    assert table.is_copy(same_slot, np.arange(50, 99)).all()


def test_a_sample_is_bounded_and_does_not_depend_on_order():
    texts = [f"text number {i} " * 10 for i in range(200)]
    sample = sample_texts(texts, 5_000)
    assert sample == sample_texts(reversed([*texts, *texts]), 5_000)
    assert 4_000 < sum(map(len, sample)) <= 5_000
    assert sorted(sample_texts(texts, 10**9)) == sorted(texts)


def test_near_copies_are_found_and_different_texts_are_not():
    from elision.text.duplicates import NearCopies

    near = NearCopies(0.7)
    words = [f"w{i}" for i in range(200)]
    assert not near.is_near_copy(" ".join(words))
    assert near.is_near_copy(" ".join([*words[:-1], "end"]))
    assert not near.is_near_copy(" ".join(words[::-1]))


def test_near_copies_without_the_package_say_what_to_install(monkeypatch):
    import sys

    from elision.text.duplicates import NearCopies

    monkeypatch.setitem(sys.modules, "rensa", None)
    with pytest.raises(InputError, match=r"pip install 'elision\[dedup\]'"):
        NearCopies(0.8)
    with pytest.raises(InputError, match="near_duplicates = 3"):
        NearCopies(3)
