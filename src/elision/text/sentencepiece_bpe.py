"""SentencePiece's BPE as LLaMA and Mistral have it: merges inside words, digits one by one, bytes for what has no symbol."""

import dataclasses
import re
from collections.abc import Iterable

import tokenizers
from tokenizers import Regex, decoders, models, normalizers, pre_tokenizers, processors, trainers

from elision.text.trained import Tokenizer
from elision.text.training import DEFAULT_COVERAGE, check_size, frequent_characters, listed, train, with_special_only

_SPECIAL = ("<unk>", "<s>", "</s>")
_BYTES = tuple(f"<0x{byte:02X}>" for byte in range(256))

# Spaces but the last of a run, which leads what follows it; a digit by itself; letters; what is neither. White space other
# than the space belongs to no word: no symbol is learned for a line break, and bytes spell it.
_WORDS = r"▁+(?=▁)|[0-9]|▁?[\p{L}\p{M}]+|▁?[^▁0-9\p{L}\p{M}\s]+|▁|\s"

# SentencePiece's own limit, in characters.
_LONGEST = 16


@dataclasses.dataclass(frozen=True)
class SentencePieceBPE:
    """LLaMA's and Mistral's tokenizer: pairs of characters joined by frequency, any other character spelled in bytes.

    Special symbols: <unk> <s> </s> with ids 0 to 2; then the 256 bytes, `extra_special_tokens`, characters and pieces.
    Text is taken as it is: no letter is replaced, no run of spaces shortened. A text begins with <s>.
    """

    vocab_size: int = 32000
    """Number of symbols, special ones and the 256 bytes included."""
    character_coverage: float = DEFAULT_COVERAGE
    """Share of the characters of the training text that must get a symbol. Of the others, at the default, those that
    come twice and once in two million get one too while an eighth of the vocabulary holds them; the rest are spelled in
    bytes."""
    min_frequency: int = 2
    """How often a pair of pieces must occur to be joined."""
    extra_special_tokens: tuple[str, ...] = ()
    """More special symbols, numbered after the bytes."""

    @property
    def roles(self) -> dict[str, str]:
        """Which symbol plays which role."""
        return {"unk": "<unk>", "bos": "<s>", "eos": "</s>"}

    def train(self, texts: Iterable[str]) -> Tokenizer:
        """Learn merges from `texts`, which are held in memory meanwhile.

        Raises: InputError when `texts` is empty or `vocab_size` cannot hold the special symbols, the bytes and the alphabet.
        """
        special = [*_SPECIAL, *self.extra_special_tokens]
        check_size(self.vocab_size, len(special), len(_BYTES))
        texts = listed(texts)
        raw = tokenizers.Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True, fuse_unk=True))
        # Metaspace would put no space before a text that begins with one.
        raw.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
        raw.pre_tokenizer = pre_tokenizers.Split(Regex(_WORDS), "isolated")
        raw.decoder = decoders.Sequence(
            [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
        )
        alphabet = frequent_characters(texts, self.character_coverage, normalizers.Sequence([]), self.vocab_size // 8)
        trainer = trainers.BpeTrainer(
            vocab_size=self.vocab_size,
            min_frequency=self.min_frequency,
            special_tokens=[*_SPECIAL, *_BYTES, *self.extra_special_tokens],
            initial_alphabet=["▁", *alphabet],
            limit_alphabet=len(alphabet) + 1,
            max_token_length=_LONGEST,
            show_progress=False,
        )
        # Line by line, as SentencePiece reads, and without the characters that bytes will spell.
        known = re.compile(f"[{re.escape(''.join(alphabet))} ]+")
        lines = [line for text in texts for line in known.findall(text)]
        train(raw, trainer, lines, self.vocab_size, len(special) + len(_BYTES))
        raw = with_special_only(raw, special)
        start = ("<s>", raw.token_to_id("<s>"))
        raw.post_processor = processors.TemplateProcessing(
            single="<s> $A", pair="<s> $A <s>:1 $B:1", special_tokens=[start]
        )
        return Tokenizer(raw, self.roles)
