"""What is done to a text before it is split: BERT's clean-up and SentencePiece's, without what breaks other scripts."""

from tokenizers import Regex, normalizers

# NFD turns each accented Latin or Greek letter into a letter and marks of this block, which alone are removed: Hangul
# (jamo), kana (U+3099) and the vowel signs of Indic scripts keep theirs and NFC puts them together again.
_LATIN_ACCENTS = b"(?<=[\\p{Latin}\\p{Greek}])[\\u0300-\\u036f]+".decode("unicode_escape")

# The spaces of Unicode that SentencePiece's own rules leave: no-break, typographic and ideographic ones.
_OTHER_SPACES = "[\u00a0\u2000-\u200a\u202f\u205f\u3000]"


def bert_normalizer(lowercase: bool, accents: str) -> normalizers.Normalizer:
    """Return BERT's clean-up (control characters, spaces around Chinese characters, case) with the given accents."""
    if accents == "auto":
        accents = "strip" if lowercase else "keep"
    bert = normalizers.BertNormalizer(
        clean_text=True, handle_chinese_chars=True, strip_accents=accents == "bert", lowercase=lowercase
    )
    if accents != "strip":
        return bert
    strip = [normalizers.NFD(), normalizers.Replace(Regex(_LATIN_ACCENTS), ""), normalizers.NFC()]
    return normalizers.Sequence([*strip, bert])


def unigram_normalizer(lowercase: bool, normal_form: str) -> normalizers.Normalizer:
    """Return SentencePiece's clean-up (control characters, runs of spaces, Unicode form, case)."""
    form = normalizers.NFKC() if normal_form == "nfkc" else normalizers.NFC()
    # NFKC makes plain spaces of these by itself.
    spaces = [normalizers.Replace(Regex(_OTHER_SPACES), " ")] * (normal_form == "nfc")
    steps = [normalizers.Nmt(), form, *spaces, normalizers.Replace(Regex(" {2,}"), " ")]
    return normalizers.Sequence([*steps, *[normalizers.Lowercase()] * lowercase, normalizers.Strip()])
