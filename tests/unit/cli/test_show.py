import io

import pytest

from elision import cli
from elision.cli.show import main, read
from elision.errors import InputError
from elision.recipe import Recipe
from elision.recipes import get
from elision.text.prepare import prepare_texts

TEXT = "The cat sat on the mat. It was a cold morning, and nobody had lit the fire yet."


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    spec = get("bert-tiny").tokenizer
    return prepare_texts([TEXT, "Dogs bark. Cats do not."], tmp_path_factory.mktemp("s") / "store", spec, validation=0)


def test_a_text_is_shown_in_the_terminal(capsys):
    assert main(["bert-tiny", TEXT, "--width", "100"]) == 0
    out = capsys.readouterr().out
    assert "[CLS]" in out and "who sees whom" in out and "restores" in out and "segment" in out
    assert "trained just now" in " ".join(out.split())


def test_settings_of_the_recipe_can_be_changed(capsys):
    main(["bert-tiny", TEXT, "--noise.rate", "1.0", "--noise.max-targets", "None", "--noise.mask-share", "1.0",
          "--noise.random-share", "0.0"])  # fmt: skip
    out = capsys.readouterr().out
    assert "cat" not in "".join(line for line in out.split("\n") if line.strip().startswith("reads"))


def test_a_page_is_written_whole_and_its_path_printed(tmp_path, capsys):
    file = tmp_path / "page.html"
    assert main(["gpt2-tiny", TEXT, "--html", str(file)]) == 0
    assert capsys.readouterr().out == f"{file}\n"
    assert file.read_text(encoding="utf-8").endswith("</html>\n")


def test_a_saved_recipe_is_shown_under_its_own_name(tmp_path, capsys):
    recipe = get("bert-tiny")
    file = tmp_path / "recipe.json"
    Recipe.from_dict({**recipe.to_dict(), "name": "mine"}).save(file)
    assert main([str(file), TEXT]) == 0
    assert "mine" in capsys.readouterr().out


def test_without_a_text_the_examples_of_a_store_are_shown(store, capsys):
    assert main(["bert-tiny", "--data", str(store.path), "--index", "1"]) == 0
    out = capsys.readouterr().out
    assert "Example 1 of" in out and "trained just now" not in out


def test_the_tokenizer_of_a_store_or_folder_serves_for_a_text(store, capsys):
    for option in (["--data", str(store.path)], ["--tokenizer", str(store.path / "tokenizer")]):
        assert main(["bert-tiny", TEXT, *option]) == 0
        assert "trained just now" not in capsys.readouterr().out


def test_texts_come_from_files_and_standard_input_with_blank_lines_between_documents(tmp_path, monkeypatch):
    file = tmp_path / "a.txt"
    file.write_text("One.\nStill one.\n\n\nTwo.\n", encoding="utf-8")
    assert [text.strip() for text in read(str(file))] == ["One.\nStill one.", "Two."]
    monkeypatch.setattr("sys.stdin", io.StringIO("One.\n \nTwo.\n\n"))
    assert [text.strip() for text in read("-")] == ["One.", "Two."]
    assert read("A plain text.") == ["A plain text."]


def test_bytes_that_are_no_utf8_become_replacement_characters(tmp_path):
    file = tmp_path / "a.txt"
    file.write_bytes(b"caf\xe9 au lait\n")
    assert read(str(file)) == ["caf\ufffd au lait\n"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["bert-tny", TEXT], "Did you mean 'bert-tiny'"),
        (["bert", TEXT], "Its sizes are: bert-tiny"),
        (["bert-tiny", "  "], "text is empty"),
        (["bert-tiny"], "nothing to show"),
        ([], "name a recipe first"),
        (["bert-tiny", "missing.txt"], "no file missing.txt"),
        (["bert-tiny", TEXT, "--width", "10"], "--width is 10"),
        (["bert-tiny", TEXT, "--examples", "0"], "--examples is 0"),
        (["bert-tiny", TEXT, "--data", "a", "--tokenizer", "b"], "give one of them"),
        (["nowhere/recipe.json", TEXT], "no recipe at"),
    ],
)
def test_bad_input_is_told_without_a_traceback(arguments, message, capsys):
    with pytest.raises(InputError, match=message):
        main(arguments)
    assert cli.main(["show", *arguments]) == 2
    assert "Traceback" not in capsys.readouterr().err


def test_help_shows_examples_and_the_recipes(capsys):
    with pytest.raises(SystemExit) as exit_status:
        main(["--help"])
    assert exit_status.value.code == 0
    out = capsys.readouterr().out
    assert "elision show bert-base" in out and "gpt2-small" in out and "--html" in out


def test_a_recipe_that_reads_pairs_wants_two_texts(capsys):
    pair = ["A cat sat on the mat.", "Eine Katze saß auf der Matte."]
    assert main(["marian-tiny", *pair, "--language", "en", "de", "--width", "200"]) == 0
    out = capsys.readouterr().out
    assert "what is read" in out and "what is written" in out and "<pad>" in out
    with pytest.raises(InputError, match="1 text cannot be parted into pairs: give each text and then what is"):
        main(["marian-tiny", pair[0]])
