"""`elision finetune`: adapt a pretrained model to a labelled task."""

import importlib

from elision.errors import InputError, nearest

KINDS = {
    "classify": "classes or scores for texts and for pairs of texts",
    "tag": "a tag for every word: names, parts of speech",
    "answer": "the stretch of a context that answers a question",
    "seq2seq": "a text of its own: translations, summaries, answers, any text from another",
}


def main(arguments: list[str]) -> int:
    """Run the command."""
    arguments = list(arguments)
    if arguments and arguments[0] in ("-h", "--help"):
        print("usage: elision finetune KIND [OPTIONS]      (elision finetune KIND --help explains one)", "", sep="\n")
        print(*(f"  {name:<10}{what}" for name, what in KINDS.items()), sep="\n")
        return 0
    kind = arguments.pop(0) if arguments and not arguments[0].startswith("-") else None
    if kind is None:
        raise InputError(
            f"say what to learn ({', '.join(KINDS)}): elision finetune classify --model PATH --data TABLE --out RUN"
        )
    if kind not in KINDS:
        raise InputError(f"there is no fine-tuning {kind!r}.{nearest(kind, KINDS)} There is: {', '.join(KINDS)}")
    return importlib.import_module(f"elision.cli.finetuning.{kind}").main(arguments)
