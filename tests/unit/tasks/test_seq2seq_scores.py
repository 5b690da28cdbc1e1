"""Scores of written texts: they are those of the published scorers, for every script."""

import pytest
import sacrebleu
from rouge_score import rouge_scorer

from elision.errors import InputError
from elision.tasks import seq2seq_scores
from elision.tasks.seq2seq_scores import UnicodeWords, check_text_metric, measure_texts, words_of

REFERENCES = ["The cat sat on the mat .", "Nobody saw the running dogs"]
OUTPUTS = ["The cat is on the mat .", "Nobody sees a running dog"]


def test_bleu_and_chrf_are_those_of_sacrebleu_and_rouge_is_that_of_rouge_score() -> None:
    scores = measure_texts([[text] for text in REFERENCES], OUTPUTS)
    assert scores.values["bleu"] == sacrebleu.corpus_bleu(OUTPUTS, [REFERENCES]).score
    assert scores.values["chrf"] == sacrebleu.corpus_chrf(OUTPUTS, [REFERENCES]).score
    scorer = rouge_scorer.RougeScorer(["rouge1", "rouge2", "rougeL"], use_stemmer=True)
    each = [scorer.score(reference, output) for reference, output in zip(REFERENCES, OUTPUTS)]
    for name in ("rouge1", "rouge2", "rougeL"):
        assert scores.values[name] == pytest.approx(50 * sum(score[name].fmeasure for score in each))
    assert "tok:13a" in scores.signatures[0] and "stem:porter" in scores.signatures[2]


def test_of_several_references_any_may_be_met() -> None:
    scores = measure_texts([["a b c d", "w x y z"], ["one two three four"]], ["w x y z", "one two three four"])
    assert scores.values["bleu"] == pytest.approx(100)
    assert scores.values["rougeL"] == pytest.approx(100)
    assert scores.values["exact_match"] == 1.0
    assert "nrefs:var" in scores.signatures[0]


def test_exact_match_is_of_words_whatever_the_spaces() -> None:
    assert measure_texts([["a b"], ["c"]], [" a  b\n", "C"]).values["exact_match"] == 0.5


@pytest.mark.parametrize(
    ("text", "tokenizer"),
    [
        ("The cat sat.", "13a"),
        ("고양이가 매트 위에 앉았다", "13a"),
        ("我喜欢吃苹果和香蕉", "zh"),
        ("私はりんごが好きです", "char"),
        ("ฉันชอบกินแอปเปิ้ล", "char"),
        ("बिल्ली चटाई पर बैठी", "13a"),
    ],
)
def test_the_script_of_the_references_says_what_a_word_is(text: str, tokenizer: str) -> None:
    assert words_of([[text]]) == tokenizer
    perfect = measure_texts([[text * 3]], [text * 3])
    assert perfect.values["rouge1"] == pytest.approx(100) and f"tok:{tokenizer}" in perfect.signatures[0]


def test_rouge_sees_the_words_of_every_script() -> None:
    assert UnicodeWords().tokenize("Größe: 10 한국어, 中文") == ["größe", "10", "한국어", "中", "文"]
    assert UnicodeWords().tokenize("हिन्दी भाषा।") == ["हिन्दी", "भाषा"]


def test_an_unknown_measure_names_the_nearest() -> None:
    with pytest.raises(InputError, match="Did you mean 'rougeL'"):
        check_text_metric("rouge-L", labels=False)
    assert check_text_metric(None, labels=True) == "accuracy" and check_text_metric(None, labels=False) == "chrf"


def test_without_the_scorers_it_is_said_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(seq2seq_scores.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"pip install 'elision\[seq2seq\]'"):
        check_text_metric(None, labels=False)


def test_a_tokenizer_of_sacrebleu_that_is_not_there_is_refused() -> None:
    with pytest.raises(InputError, match="tokenize is 'martian'"):
        measure_texts([["a"]], ["a"], tokenize="martian")
