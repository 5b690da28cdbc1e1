"""Files are whole or absent."""

import json
import os
from pathlib import Path

import pytest

from elision import atomic


def test_a_file_appears_when_it_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "file.txt"
    with atomic.replacing(path) as temporary:
        temporary.write_text("half")
        assert not path.exists()
        assert temporary.parent == path.parent and temporary.name.startswith(".")
    assert path.read_text() == "half"
    assert [p.name for p in path.parent.iterdir()] == ["file.txt"]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_an_error_leaves_the_earlier_file_and_nothing_else(tmp_path: Path, error: type[BaseException]) -> None:
    path = tmp_path / "file.txt"
    path.write_text("earlier")
    with pytest.raises(error), atomic.replacing(path) as temporary:
        temporary.write_text("later")
        raise error
    assert path.read_text() == "earlier"
    assert [p.name for p in tmp_path.iterdir()] == ["file.txt"]


def test_an_error_leaves_the_earlier_folder_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "folder"
    path.mkdir()
    (path / "a").write_text("earlier")
    with pytest.raises(OSError), atomic.replacing(path) as temporary:
        temporary.mkdir()
        (temporary / "a").write_text("later")
        raise OSError(28, "No space left on device")
    assert (path / "a").read_text() == "earlier"
    assert [p.name for p in tmp_path.iterdir()] == ["folder"]


def test_a_folder_replaces_a_folder_as_a_whole(tmp_path: Path) -> None:
    path = tmp_path / "folder"
    for content in ("first", "second"):
        with atomic.replacing(path) as temporary:
            temporary.mkdir()
            (temporary / content).write_text(content)
    assert [p.name for p in path.iterdir()] == ["second"]
    assert [p.name for p in tmp_path.iterdir()] == ["folder"]


def test_a_failing_rename_leaves_the_earlier_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "file.txt"
    path.write_text("earlier")

    def refuse(*arguments: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "replace", refuse)
    with pytest.raises(PermissionError):
        atomic.write_text(path, "later")
    assert path.read_text() == "earlier"
    assert [p.name for p in tmp_path.iterdir()] == ["file.txt"]


def test_content_is_on_disk_before_its_name_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    events: list[str] = []
    sync, rename = os.fsync, os.replace
    monkeypatch.setattr(os, "fsync", lambda number: (events.append("sync"), sync(number))[1])
    monkeypatch.setattr(os, "replace", lambda *paths: (events.append("rename"), rename(*paths))[1])
    atomic.write_text(tmp_path / "file.txt", "x")
    # The file, then its new name, then the folder that holds the name.
    assert events == ["sync", "rename", "sync"]


def test_json_is_readable_by_people_and_keeps_every_language(tmp_path: Path) -> None:
    atomic.write_json(tmp_path / "a.json", {"말": [1, 0.1]})
    text = (tmp_path / "a.json").read_text(encoding="utf-8")
    assert "말" in text and text.endswith("}\n")
    assert json.loads(text) == {"말": [1, 0.1]}
