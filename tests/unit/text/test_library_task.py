from elision.text import docstrings, library_task
from elision.text.library_task import BLANK, LIBRARIES, blanked


def test_names_of_libraries_and_dotted_names_are_blanked():
    words = "Return the sum of all the elements in the given list with care and then some more words here"
    assert blanked(f"np.sum of PyTorch and a numpy array, scikit-learn too. {words}") == (
        f"{BLANK} of {BLANK} and a {BLANK} array, {BLANK} too. {words}"
    )
    assert blanked(f"Like :func:`find` since then. {words}\n.. versionadded:: 1.0\nEnd").endswith("words here End")
    assert blanked("Too few words to judge by.") is None


def test_the_same_task_comes_twice_and_its_sides_share_no_row(monkeypatch):
    # Less source than the task reads by itself, for speed.
    monkeypatch.setattr(library_task, "_MAX_SOURCE_BYTES", 400_000)
    first = library_task.library_task(train_per_class=4, valid_per_class=5)
    assert first == library_task.library_task(train_per_class=4, valid_per_class=5)
    assert set(first.labels) <= set(LIBRARIES)
    assert len(first.train) == 4 * len(first.labels)
    assert not {row["text"] for row in first.train} & {row["text"] for row in first.valid}
    assert {row["label"] for row in first.train} == {row["label"] for row in first.valid} == set(first.labels)
    assert library_task.library_task(train_per_class=4, valid_per_class=5, seed=1).train != first.train


def test_source_files_leave_out_tests_and_tools():
    files = dict(docstrings.source_files())
    assert "json.decoder" in files
    assert not [file for file in files.values() if {"tests", "test", "_vendor"} & set(file.parent.parts)]
    assert not {"pip", "pytest"} & {module.partition(".")[0] for module in files}


def test_docstrings_become_documents_of_functions_and_classes(tmp_path):
    source = tmp_path / "module.py"
    text = "A sentence that is long enough to be kept, with\n    a wrapped line."
    source.write_text(f'"""{text}"""\n\nclass C:\n    """{text}"""\n\n    def f(self):\n        """Inner."""\n')
    ((module, file, documents, size),) = docstrings.parse([("module", source)])
    joined = "A sentence that is long enough to be kept, with a wrapped line."
    assert (module, file, size) == ("module", source, source.stat().st_size)
    assert documents == [(1, "", joined), (4, "C", f"{joined}\n\nInner.")]
