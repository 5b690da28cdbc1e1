"""Control codes: what kind of text a document is, as one symbol that a model reads before it (CTRL)."""

import dataclasses

from elision.errors import InputError
from elision.text.tokenizer import TokenizerSpec
from elision.text.trained import Tokenizer

# A field with more values than this names something else than a kind of text.
MAX_CODES = 1000


def code_symbol(code: str) -> str:
    """Return the special symbol of a code, such as `<|Books|>`."""
    return f"<|{code}|>"


def known_codes(tokenizer: Tokenizer) -> list[str]:
    """Return the codes that a tokenizer has symbols of their own for."""
    special, roles = tokenizer.vocabulary.special, set(tokenizer.roles.values())
    symbols = [symbol for i, symbol in enumerate(tokenizer.symbols()) if special[i] and symbol not in roles]
    return [symbol[2:-2] for symbol in symbols if symbol.startswith("<|") and symbol.endswith("|>") and len(symbol) > 4]


def with_codes(spec: TokenizerSpec, codes: set[str]) -> TokenizerSpec:
    """Return the tokenizer to train with a symbol of its own for each code of its corpus, in alphabetical order.

    Raises: InputError when there are too many, or one's symbol is taken; a tokenizer of whole words has no room for any.
    """
    if not codes or "extra_special_tokens" not in {field.name for field in dataclasses.fields(spec)}:
        return spec
    if len(codes) > MAX_CODES:
        some = ", ".join(repr(code) for code in sorted(codes)[:3])
        raise InputError(
            f"the documents have {len(codes):,} different codes ({some} ...), at most {MAX_CODES:,} can have a symbol: a "
            f"code is a kind of text, such as its source. Name another field with --reading.code-field."
        )
    symbols = [code_symbol(code) for code in sorted(codes)]
    symbols = [symbol for symbol in symbols if symbol not in spec.extra_special_tokens]
    taken = sorted(set(symbols) & set(spec.roles.values()))
    if taken:
        raise InputError(
            f"the code {taken[0][2:-2]!r} would be written {taken[0]}, a symbol of another meaning: rename it."
        )
    return dataclasses.replace(spec, extra_special_tokens=(*spec.extra_special_tokens, *symbols))


def code_id(tokenizer: Tokenizer, code: str) -> int:
    """Return the id of a code: of its own symbol, or of the ordinary symbol that its name is.

    Raises: InputError when it has no single one.
    """
    own = tokenizer.raw.token_to_id(code_symbol(code))
    if own is not None:
        return own
    ids = tokenizer.encode(code)
    if len(ids) != 1 or ids[0] == tokenizer.vocabulary.unk:
        raise InputError(
            f"the code {code!r} of the corpus has no token of its own: this tokenizer has no symbol {code_symbol(code)}, and "
            f"writes the name with {len(ids)} tokens. Train a tokenizer on the corpus, which gives every code a symbol "
            f"(`elision prepare ... --recipe ctrl-tiny`), or rename the code."
        )
    return ids[0]
