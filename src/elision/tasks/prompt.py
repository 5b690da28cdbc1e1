"""What stands around the text that a model reads before it writes: "summarize: {source}", "{source} TL;DR:"."""

import dataclasses

from elision.errors import InputError

BLANK = "{source}"


@dataclasses.dataclass(frozen=True)
class Prompt:
    """A text with a place for the source. What is to be written follows it.

    >>> Prompt("summarize: {source}").before, Prompt("{source} TL;DR:").after
    ('summarize: ', ' TL;DR:')
    """

    text: str

    def __post_init__(self) -> None:
        if self.text.count(BLANK) != 1:
            raise InputError(
                f"prompt is {self.text!r}: say once where the source stands, with {BLANK}: --prompt 'summarize: {BLANK}'"
            )
        if "{target}" in self.text:
            raise InputError(f"prompt is {self.text!r}: leave {{target}} out, for what is written follows the prompt")

    @property
    def before(self) -> str:
        """What precedes the source."""
        return self.text.partition(BLANK)[0]

    @property
    def after(self) -> str:
        """What follows the source."""
        return self.text.partition(BLANK)[2]


# A decoder must be told where the source ends; an encoder has nothing else to read.
FOR_ENCODERS = Prompt(BLANK)
FOR_DECODERS = Prompt(BLANK + "\n\n###\n\n")
