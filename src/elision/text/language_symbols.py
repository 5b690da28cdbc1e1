"""Which symbol of a vocabulary stands for a language: mBART ends every text with one."""

from collections.abc import Iterable, Mapping

from elision.errors import InputError

# How a language is written as a symbol, beside a code with a region ("ne" as "ne_NP").
FORMS = ("{}", "<{}>", "[{}]", "__{}__", "<2{}>", ">>{}<<")


def language_symbols(symbols: Mapping[str, int], languages: Iterable[str]) -> dict[str, int]:
    """Return the id of each language's symbol.

    symbols: the special symbols of a tokenizer by how they are written. "ne" is written as itself, in one of the usual
    brackets (<ne>, [ne], __ne__, <2ne>, >>ne<<), or with a region or script behind it (ne_NP, zho_Hans).

    Raises: InputError naming all languages without a symbol, or one with several regions.

    >>> language_symbols({"</s>": 2, "[en]": 7, "ne_NP": 8}, ["ne", "en"])
    {'ne': 8, 'en': 7}
    """
    found = {language: _symbols_of(language, symbols) for language in languages}
    missing = [language for language, those in found.items() if not those]
    if missing:
        one = missing[0]
        raise InputError(
            f"the tokenizer has no symbol for the language{'s' * (len(missing) > 1)} {', '.join(missing)}: train it with one "
            f"for each among its extra_special_tokens, written {one}, <{one}>, [{one}] or {one}_XX (or name the language in "
            f"the data as the tokenizer does; its special symbols are {_some(symbols)})"
        )
    for language, those in found.items():
        if len(those) > 1:
            raise InputError(
                f"the language {language} could be any of the symbols {', '.join(those)} of the tokenizer: name it in the data "
                f"as one of these"
            )
    return {language: symbols[those[0]] for language, those in found.items()}


def _symbols_of(language: str, symbols: Mapping[str, int]) -> list[str]:
    exact = [form.format(language) for form in FORMS if form.format(language) in symbols]
    if exact:
        return exact[:1]
    return sorted(symbol for symbol in symbols if symbol.startswith(f"{language}_"))


def _some(symbols: Mapping[str, int]) -> str:
    names = list(symbols)
    return ", ".join(names[:12]) + (" ..." if len(names) > 12 else "") if names else "none"
