"""What scripts write: full stops, and whether words have spaces between them."""

# Of Latin and most others, Chinese and Japanese (three widths), Indian, Arabic, Armenian, Ethiopic, Burmese, Khmer and
# Mongolian scripts.
FULL_STOPS = frozenset(".。．｡।॥۔։።။។៕᠃")

# Thai, Lao, Tibetan, Burmese, Khmer, kana, Chinese characters.
_SPACELESS = (
    (0x0E00, 0x0E7F),
    (0x0E80, 0x0EFF),
    (0x0F00, 0x0FFF),
    (0x1000, 0x109F),
    (0x1780, 0x17FF),
    (0x3040, 0x30FF),
    (0x3400, 0x4DBF),
    (0x4E00, 0x9FFF),
    (0xF900, 0xFAFF),
    (0x20000, 0x3FFFF),
)


def is_full_stop(text: str) -> bool:
    """Tell whether a piece of text is a full stop and nothing else."""
    return text in FULL_STOPS


def is_spaceless(text: str) -> bool:
    """Tell whether a piece of text is of a script that writes no spaces between words."""
    return any(
        first <= ord(character) <= last for character in text for first, last in _SPACELESS if character > "\u0dff"
    )
