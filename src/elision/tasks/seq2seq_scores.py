"""How good written texts are, by the published scorers: BLEU and chrF (sacrebleu), ROUGE (rouge-score), and exact match."""

import dataclasses
import importlib.metadata
import importlib.util
import logging
import unicodedata
from collections.abc import Sequence

from elision.errors import InputError, nearest
from elision.text.scripts import is_spaceless

METRICS = ("bleu", "chrf", "rouge1", "rouge2", "rougeL", "exact_match", "loss")
# Where only few different texts are written.
LABEL_METRICS = ("accuracy", "macro_f1", "exact_match", "chrf", "loss")
TOKENIZERS = ("auto", "13a", "intl", "char", "zh", "ko-mecab", "ja-mecab", "none")

_LETTERS_LOOKED_AT = 20_000

References = Sequence[Sequence[str]]


@dataclasses.dataclass(frozen=True)
class TextScores:
    """Measures by name, from 0 to 100 (exact_match from 0 to 1), and the signatures that say how they were counted."""

    values: dict[str, float]
    signatures: tuple[str, ...]


def check_text_metric(metric: str | None, labels: bool) -> str:
    """Return the measure that picks the best checkpoint: that of the user, else accuracy for labels and chrF for texts.

    Raises: InputError when there is no such measure, or the scorers are not installed.
    """
    for module in ("sacrebleu", "rouge_score"):
        if importlib.util.find_spec(module) is None:
            raise InputError(
                f"written texts are measured by {module}, which is not installed: pip install 'elision[seq2seq]'"
            )
    if metric is None:
        return "accuracy" if labels else "chrf"
    known = list(LABEL_METRICS if labels else METRICS)
    if metric not in known:
        raise InputError(f"metric is {metric!r}: these texts have {', '.join(known)}.{nearest(metric, known)}")
    return metric


def measure_texts(references: References, outputs: Sequence[str], tokenize: str = "auto") -> TextScores:
    """Return BLEU, chrF, ROUGE-1, -2 and -L (F1) and exact match of outputs, each by all of its references.

    tokenize: how sacrebleu splits words for BLEU; "auto" = 13a, WMT's, or characters where the references' script has no
    spaces ("zh" for Chinese). BLEU and chrF are of the corpus, ROUGE (the best reference's) and exact match are means.
    Raises: InputError when the tokenizer needs a package that is missing.
    """
    from sacrebleu.metrics import BLEU, CHRF

    assert len(references) == len(outputs) > 0
    # References in streams, as sacrebleu wants them; where an output has fewer, it is told so.
    width = max(len(each) for each in references)
    streams = [[each[n] if n < len(each) else None for each in references] for n in range(width)]
    if tokenize not in TOKENIZERS:
        raise InputError(
            f"tokenize is {tokenize!r}: sacrebleu has {', '.join(TOKENIZERS)}.{nearest(tokenize, list(TOKENIZERS))}"
        )
    if tokenize == "auto":
        tokenize = words_of(references)
    try:
        bleu = BLEU(tokenize=tokenize)
    except (RuntimeError, ImportError, ValueError) as error:
        raise InputError(f"tokenize is {tokenize!r}: {str(error).strip()}") from None
    chrf = CHRF()
    # It warns of texts that look tokenised, once for each evaluation.
    logging.getLogger("sacrebleu").setLevel(logging.ERROR)
    values = {
        "bleu": bleu.corpus_score(list(outputs), streams).score,
        "chrf": chrf.corpus_score(list(outputs), streams).score,
    }
    rouge, rouge_signature = _rouge(references, outputs)
    matches = [
        any(_plain(output) == _plain(text) for text in texts) for texts, output in zip(references, outputs, strict=True)
    ]
    values |= {**rouge, "exact_match": sum(matches) / len(matches)}
    signatures = (f"BLEU|{bleu.get_signature()}", f"chrF2|{chrf.get_signature()}", rouge_signature)
    return TextScores({name: float(value) for name, value in values.items()}, signatures)


def words_of(references: References) -> str:
    """Return sacrebleu's tokenizer for the script of the references: "13a", "zh", or "char" for others without spaces."""
    found = {"zh": 0, "char": 0, "13a": 0}
    num_letters = 0
    for texts in references:
        for letter in texts[0]:
            if letter.isalpha():
                chinese = unicodedata.name(letter, "").startswith("CJK")
                found["zh" if chinese else "char" if is_spaceless(letter) else "13a"] += 1
                num_letters += 1
        if num_letters > _LETTERS_LOOKED_AT:
            break
    # Japanese is written with Chinese letters too; what tells it are the others.
    if found["char"] > 0.1 * (found["char"] + found["zh"]) and found["char"] + found["zh"] > found["13a"]:
        return "char"
    return "zh" if found["zh"] > found["13a"] else "13a"


class UnicodeWords:
    """ROUGE's words where the published ones, a to z and digits, would leave no text: letters of any script.

    Letters of scripts without spaces are words each. `rouge_score` asks for an object with this method.
    """

    def tokenize(self, text: str) -> list[str]:
        """Return the words of a text in lower case.

        >>> UnicodeWords().tokenize("Größe: 10 한국어, 中文")
        ['größe', '10', '한국어', '中', '文']
        """
        words, word = [], ""
        for letter in text.lower():
            # Vowel signs are marks, and belong to their letter.
            if unicodedata.category(letter)[0] not in "LMN":
                words, word = [*words, word] if word else words, ""
                continue
            if is_spaceless(letter):
                words, word = [*words, word, letter] if word else [*words, letter], ""
                continue
            word += letter
        return [*words, word] if word else words


def _rouge(references: References, outputs: Sequence[str]) -> tuple[dict[str, float], str]:
    from rouge_score import rouge_scorer

    names = ["rouge1", "rouge2", "rougeL"]
    letters = [letter for texts in references for letter in texts[0][:200] if letter.isalpha()]
    english = sum(letter.isascii() for letter in letters) >= 0.99 * len(letters)
    if english:
        scorer = rouge_scorer.RougeScorer(names, use_stemmer=True)
        how = "tok:a-z0-9|stem:porter"
    else:
        scorer = rouge_scorer.RougeScorer(names, tokenizer=UnicodeWords())
        how = "tok:unicode|stem:no"
    totals = dict.fromkeys(names, 0.0)
    for texts, output in zip(references, outputs, strict=True):
        for name, score in scorer.score_multi(list(texts), output).items():
            totals[name] += score.fmeasure
    values = {name: 100 * total / len(outputs) for name, total in totals.items()}
    return values, f"ROUGE-1,2,L F1|{how}|refs:best|rouge-score:{importlib.metadata.version('rouge-score')}"


def _plain(text: str) -> str:
    return " ".join(text.split())
