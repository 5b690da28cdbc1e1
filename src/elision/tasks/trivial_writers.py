"""What writes without having learned much: copying, the first sentence, a dictionary, the commonest target."""

from collections import Counter
from collections.abc import Sequence

import numpy as np

from elision.tasks.dictionary import Dictionary, words
from elision.tasks.pairs_of_text import TextPair
from elision.tasks.seq2seq_scores import TextScores, measure_texts
from elision.text.sentences import split_sentences


def trivial_writers(
    train: Sequence[tuple[str, str]], valid: Sequence[TextPair], labels: tuple[str, ...], tokenize: str
) -> dict[str, dict[str, float]]:
    """Return, by name, the measures of what writes without having learned much."""
    references, sources = [pair.targets for pair in valid], [pair.source for pair in valid]
    if labels:
        found = {"the commonest target": [labels[0]] * len(valid)}
    else:
        found = {"copying the source": sources}
        read, written = (np.mean([len(words(pair[side])) for pair in train[:200]]) for side in (0, 1))
        if read > 2 * written:
            # A summary: the usual rival is how the document begins.
            found["the first sentence"] = [(split_sentences(source) or [source])[0] for source in sources]
        elif written < 2 * read:
            translate = Dictionary.fit(train)
            found["a dictionary, word by word"] = [translate(source) for source in sources]
        ((commonest, count),) = Counter(target for _, target in train).most_common(1)
        if count > 0.01 * len(train):
            found["the commonest target"] = [commonest] * len(valid)
    measured = {name: _rounded(measure_texts(references, outputs, tokenize)) for name, outputs in found.items()}
    if labels:
        measured = {
            name: {"chrf": values["chrf"], "exact_match": values["exact_match"], "accuracy": values["exact_match"]}
            for name, values in measured.items()
        }
    return measured


def _rounded(scores: TextScores) -> dict[str, float]:
    return {name: round(value, 4) for name, value in scores.values.items()}
