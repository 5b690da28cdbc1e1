"""A toy world for tagging and answering: what is to be found is plain to see in the words themselves."""

import random

from elision.tasks.questions import Answer, Question
from elision.tasks.tagged import TaggedText, joined

PLAIN = ["me", "no", "ra", "su"]
NAMES = {"PER": ["ba", "do"], "LOC": ["ki", "lu"]}


def texts(num_texts: int, seed: int) -> list[TaggedText]:
    """Return texts whose names are told by their words; a name of two words begins with B- and goes on with I-."""
    rng = random.Random(seed)
    made = []
    for _ in range(num_texts):
        words: list[str] = []
        tags: list[str] = []
        for _ in range(rng.randint(2, 4)):
            kind = rng.choice([None, *NAMES])
            if kind is None:
                words.append(rng.choice(PLAIN))
                tags.append("O")
            else:
                words += NAMES[kind]
                tags += [f"B-{kind}", f"I-{kind}"]
            words.append(rng.choice(PLAIN))
            tags.append("O")
        made.append(joined(words, tags, "words"))
    return made


def questions(num_questions: int, seed: int, answerable: float = 1.0, length: int = 6) -> list[Question]:
    """Return questions for what stands between "ba" and "do": one or two words; and contexts without them."""
    rng = random.Random(seed)
    made = []
    for n in range(num_questions):
        before = " ".join(rng.choices(PLAIN, k=rng.randint(0, length)))
        answer = " ".join(rng.choices(["ki", "lu"], k=rng.randint(1, 2)))
        after = " ".join(rng.choices(PLAIN, k=rng.randint(0, 3)))
        if rng.random() < answerable:
            context = f"{before} ba {answer} do {after}".strip()
            answers = (Answer(answer, context.index(f"ba {answer}") + 3),)
        else:
            context, answers = f"{before} me {after}".strip(), ()
        made.append(Question("ve", context, answers, id=str(n)))
    return made
