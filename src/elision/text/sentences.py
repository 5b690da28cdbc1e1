"""Sentences, in any language that marks their ends: one function, made to be undone by simple concatenation."""

import re

_CLOSE = "\"'”’»›)\\]}」』】〉》）"
_OPEN = "\"'“‘«‹([{「『【〈《（"

_SOFT = ".!?…"
_HARD = "。！？｡।॥؟۔։።။"
# Three kinds of candidate. Soft stops, which abbreviations and numbers use too, must have white space behind them, or
# Hangul on both sides (informal Korean leaves the space out). Hard stops, of scripts without that ambiguity, need none.
# A line end always counts: it separates the sentences of a one-sentence-per-line file. All three begin with the one
# character class at the front, which lets the regex engine skip through the text.
_CANDIDATE = re.compile(
    rf"[{_SOFT}{_HARD}\n](?:"
    rf"(?<=[{_SOFT}])[{_SOFT}]*[{_CLOSE}]*(?:\s+(?=\S)|(?<=[다요죠까네음함임][.!?])(?=[가-힣]))"
    rf"|(?<=[{_HARD}])[{_HARD}]*[{_CLOSE}]*(?:\s+(?=\S)|(?=\w))"
    r"|(?<=\n)\s*(?=\S))"
)
_NEXT = re.compile(rf"[{re.escape(_OPEN)}]*(\S)")
_LOOK_BACK = 24

# Written with a stop inside a sentence; the others ("etc.", "p.m.") also end sentences, and then a capital follows.
_ABBREVIATIONS = frozenset(
    re.findall(
        r"\S+",
        """mr mrs ms mx dr prof st mt sr jr rev hon gen col lt capt cmdr sgt gov sen rep pres messrs mme mlle
        vs viz cf ca approx fig figs eq eqs no nos vol vols ch sec pp ed eds al resp incl
        jan feb mar apr jun jul aug sept sep oct nov dec
        bzw usw ggf evtl vgl nr abb bd hr fr ph.d e.g i.e a.k.a z.b d.h u.a p.ex т.е т.д г ул""",
    )
)
# Languages that write ordinal numbers with a stop: "3. Oktober", "17. mai".
_ORDINAL_STOP = frozenset(("de", "da", "nb", "nn", "no", "fi", "et", "cs", "sk", "pl", "hu", "sl", "hr", "sr", "lv"))

# Dates with spaces, as Korean writes them: "2024. 3. 5.", "24. 3. 5.", and before Hangul "2024. 3." and "3. 5.".
_MONTH, _DAY = "(?:1[0-2]|0?[1-9])", "(?:3[01]|[12][0-9]|0?[1-9])"
_DATE = re.compile(
    rf"(?<![\d.])(?:[0-9]{{2}}|[0-9]{{4}})\.([ \xa0]?){_MONTH}\.\1{_DAY}(?!\d|\.\d)\.?"
    rf"|(?<![\d.])(?:[0-9]{{4}}\.[ \xa0]{_MONTH}|{_MONTH}\.[ \xa0]{_DAY})\.(?=[ \xa0]?[(~가-힣])"
)
_LOOK_AHEAD = 16


def split_sentences(text: str, language: str | None = None) -> list[str]:
    """Cut `text` into sentences; `"".join` of them gives `text` back, character for character.

    White space between two sentences stays with the first, except its last character, which leads the second: so a
    byte-level BPE or WordPiece tokenizer gives the sentences the same ids, put together, as the whole text. Where that
    could not hold (a stop that touches an opening quotation mark), there is no cut. `language` (a code such as "de")
    only sharpens the default, which serves all languages; text without marked ends comes back whole.

    >>> split_sentences("It costs 3.5 million. Mr. Kim agreed.")
    ['It costs 3.5 million.', ' Mr. Kim agreed.']
    """
    has_ordinal_stop = language is not None and language[:2].lower() in _ORDINAL_STOP
    pieces = []
    start = 0
    for candidate in _CANDIDATE.finditer(text):
        end = candidate.end()
        # The gap behind an abbreviation may still hold a line end, which counts by itself.
        is_open = candidate[0][0] in _SOFT and "\n" not in candidate[0]
        if is_open and not _ends_sentence(text, candidate.start(), end, has_ordinal_stop):
            continue
        cut = end - 1 if text[end - 1].isspace() else end
        if cut > start and not text[start:cut].isspace():
            pieces.append(text[start:cut])
            start = cut
    if start < len(text):
        pieces.append(text[start:])
    return pieces


def _ends_sentence(text: str, start: int, end: int, has_ordinal_stop: bool) -> bool:
    following = _NEXT.match(text, end)
    if following is not None and following[1].islower():
        return False
    before = text[max(0, start - _LOOK_BACK) : start]
    if text[start] != "." or text[start + 1] in _SOFT or not before or before[-1].isspace():
        return True
    word = before.split()[-1].lstrip(_OPEN)
    if not word:
        return True
    if word.lower() in _ABBREVIATIONS or (len(word) == 1 and word.isalpha() and word.isupper()):
        return False
    if "." in word and all(len(part) <= 1 for part in word.split(".")) and not word[-1].isdigit():
        # U.S., J.R.R.
        return False
    if word[-1].isdigit() and _in_date(text, start, following is not None and following[1].isupper()):
        return False
    if word.isdigit():
        # "3." at the start of a line numbers an item of a list.
        return not has_ordinal_stop and text[max(0, start - len(word) - 1) : start - len(word)] not in ("", "\n")
    return True


def _in_date(text: str, stop: int, is_capital_next: bool) -> bool:
    """Tell whether the stop belongs to a date; the last one of a date does, unless a capital letter follows."""
    if not (text[stop + 1 : stop + 3].strip()[:1].isdigit() or "." in text[max(0, stop - 4) : stop]):
        return False
    for date in _DATE.finditer(text, max(0, stop - _LOOK_BACK), stop + _LOOK_AHEAD):
        if date.start() < stop < date.end():
            return stop < date.end() - 1 or not is_capital_next
    return False
