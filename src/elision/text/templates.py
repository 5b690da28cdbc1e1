"""How the layouts of each family frame a text and a pair, as `tokenizers` wants to be told."""

import tokenizers
from tokenizers import processors


def bert_template(raw: tokenizers.Tokenizer, cls: str = "[CLS]", sep: str = "[SEP]") -> processors.PostProcessor:
    """Return `[CLS] A [SEP]`, and for pairs `[CLS] A [SEP] B [SEP]` with type ids 0 and 1."""
    return processors.TemplateProcessing(
        single=f"{cls} $A {sep}",
        pair=f"{cls} $A {sep} $B:1 {sep}:1",
        special_tokens=[(cls, raw.token_to_id(cls)), (sep, raw.token_to_id(sep))],
    )


def roberta_template(raw: tokenizers.Tokenizer) -> processors.PostProcessor:
    """Return `<s> A </s>`, and for pairs `<s> A </s></s> B </s>`, all of type 0."""
    return processors.TemplateProcessing(
        single="<s> $A </s>",
        pair="<s> $A </s> </s> $B </s>",
        special_tokens=[("<s>", raw.token_to_id("<s>")), ("</s>", raw.token_to_id("</s>"))],
    )


def xlm_template(raw: tokenizers.Tokenizer) -> processors.PostProcessor:
    """Return `</s> A </s>`, and for pairs `</s> A </s> B </s>`, all of type 0."""
    return processors.TemplateProcessing(
        single="</s> $A </s>", pair="</s> $A </s> $B </s>", special_tokens=[("</s>", raw.token_to_id("</s>"))]
    )


def end_template(raw: tokenizers.Tokenizer) -> processors.PostProcessor:
    """Return `A </s>`, and for pairs `A </s> B </s>`, all of type 0."""
    return processors.TemplateProcessing(
        single="$A </s>", pair="$A </s> $B </s>", special_tokens=[("</s>", raw.token_to_id("</s>"))]
    )


def unigram_template(raw: tokenizers.Tokenizer, layout: str) -> processors.PostProcessor:
    """Return the frame of a Unigram layout: that of BERT, RoBERTa, T5 (also Marian) or XLNet."""
    if layout == "albert":
        return bert_template(raw)
    if layout == "xlm-r":
        return roberta_template(raw)
    if layout in ("t5", "marian"):
        return end_template(raw)
    # XLNet puts its symbols at the end and gives <cls> a type of its own.
    return processors.TemplateProcessing(
        single="$A <sep> <cls>:2",
        pair="$A <sep> $B:1 <sep>:1 <cls>:2",
        special_tokens=[("<sep>", raw.token_to_id("<sep>")), ("<cls>", raw.token_to_id("<cls>"))],
    )
