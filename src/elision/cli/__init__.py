"""The command line. Each command is one file beside this one, imported only when it is called."""

import importlib
import os
import sys

COMMANDS = {
    "prepare": "text in, token store out: read, clean, train a tokenizer, tokenise",
    "pretrain": "train a recipe from scratch (or go on from a model) on a token store",
    "recipes": "list the recipes and their sizes",
    "show": "see what a recipe does to a text: what is left out, what must be restored, who sees whom",
    "fill": "let a masked language model fill the blanks of a sentence",
    "generate": "let a model continue a prompt, or write from a source",
    "attribute": "tell which of its control codes a model finds likeliest for a text (CTRL)",
    "finetune": "adapt a pretrained model to a labelled task",
    "embed": "turn texts, or their tokens, into vectors for other models",
    "predict": "label new text with a fine-tuned model",
    "evaluate": "measure a model on held-out text, beside unigram and trigram baselines",
    "compare": "put models side by side: how large, how fast, how good; a student against its teacher",
    "export": "write a Hugging Face folder from a run",
    "import": "read a Hugging Face folder into a checkpoint that training can continue from",
    "demo": "the whole road once, on the documentation that is already on this machine",
}

USAGE = "usage: elision COMMAND [OPTIONS]      (elision COMMAND --help explains one)"


def main(arguments: list[str] | None = None) -> int:
    """Run one command; returns the exit status (0 fine, 1 failed, 2 bad input, 130 interrupted)."""
    from elision.errors import InputError, nearest

    arguments = sys.argv[1:] if arguments is None else arguments
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        width = max(map(len, COMMANDS)) + 2
        print(USAGE, "", *(f"  {name:<{width}}{what}" for name, what in COMMANDS.items()), sep="\n")
        return 0
    if arguments[0] in ("-V", "--version"):
        from elision import __version__

        print(f"elision {__version__}")
        return 0
    name, rest = arguments[0], arguments[1:]
    try:
        if name not in COMMANDS:
            raise InputError(
                f"There is no command {name!r}.{nearest(name, COMMANDS)} Run `elision --help` for the list."
            )
        command = importlib.import_module(f"elision.cli.{name}_" if name == "import" else f"elision.cli.{name}")
        return command.main(rest) or 0
    except InputError as error:
        print(f"elision {name}: {error}", file=sys.stderr)
        return 2
    except BrokenPipeError:
        # The reader of our output (head, less) has left: point stdout at nothing so that the exit stays quiet.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except OSError as error:
        what = f" {error.filename}" if error.filename else ""
        print(f"elision {name}: {error.strerror or error}:{what}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(f"\nelision {name}: interrupted", file=sys.stderr)
        return 130
