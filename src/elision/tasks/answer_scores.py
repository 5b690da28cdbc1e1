"""How good answers are: exact match and F1 over words after SQuAD's normalisation (Rajpurkar et al. 2016, section 6.1)."""

import re
import string
from collections import Counter
from collections.abc import Sequence

import numpy as np

from elision.errors import InputError, nearest

METRICS = ("f1", "exact_match", "character_f1")


def normalised(text: str) -> str:
    """Return the text in lower case without ASCII punctuation, English articles and runs of spaces.

    >>> normalised("The  Answer, a word!")
    'answer word'
    """
    text = "".join(character for character in text.lower() if character not in string.punctuation)
    return " ".join(re.sub(r"\b(a|an|the)\b", " ", text).split())


def exact_match(predicted: str, truth: str) -> float:
    """Return 1 when both are the same after normalisation, else 0."""
    return float(normalised(predicted) == normalised(truth))


def overlap_f1(predicted: str, truth: str, *, characters: bool = False) -> float:
    """Return F1 between the words of both (or their characters); without a word in one of them, whether both are empty.

    Characters suit languages whose words carry endings, as in KorQuAD's measure.
    """
    ours, theirs = normalised(predicted), normalised(truth)
    a, b = ((list(text.replace(" ", "")) if characters else text.split()) for text in (ours, theirs))
    if not a or not b:
        return float(a == b)
    same = sum((Counter(a) & Counter(b)).values())
    return 2 * same / (len(a) + len(b))


def measure_answers(truth: Sequence[Sequence[str]], predicted: Sequence[str]) -> dict[str, float]:
    """Return the mean measures, each question by the best of its true answers; none of them means that "" is right.

    Where some questions have no answer, F1 of those that have one and the share of the others that was seen to have
    none come apart, too.
    """
    table = []
    for answers, given in zip(truth, predicted, strict=True):
        # As in the official script: answers of nothing but articles and punctuation do not count.
        wanted = [answer for answer in answers if normalised(answer)] or [""]
        table.append(
            (
                max(exact_match(given, answer) for answer in wanted),
                max(overlap_f1(given, answer) for answer in wanted),
                max(overlap_f1(given, answer, characters=True) for answer in wanted),
            )
        )
    scores_N3 = np.array(table)
    exact, f1, character = scores_N3.mean(0).tolist()
    values = {"f1": f1, "exact_match": exact, "character_f1": character}
    answerable = np.array([bool(answers) for answers in truth])
    if not answerable.all():
        if answerable.any():
            values["f1_where_answered"] = float(scores_N3[answerable, 1].mean())
        values["seen_unanswerable"] = float(scores_N3[~answerable, 0].mean())
    return values


def check_answer_metric(metric: str | None) -> str:
    """Return the measure that picks the best checkpoint. Raises: InputError when there is no such measure."""
    if metric is None:
        return METRICS[0]
    if metric not in METRICS:
        raise InputError(f"metric is {metric!r}: answers have {', '.join(METRICS)}.{nearest(metric, METRICS)}")
    return metric
