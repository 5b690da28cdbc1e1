"""`elision prepare`: text in, token store out."""

import dataclasses
import shlex
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro

from elision.data.shards import SHARD_TOKENS
from elision.data.store import MANIFEST, Store
from elision.errors import InputError
from elision.text.cleaning import Cleaning
from elision.text.readers import Reading
from elision.text.tokenizer import ByteLevelBPE, SentencePieceBPE, TokenizerSpec, Unigram, WordPiece, layouts
from elision.text.vocabulary import ROLES

if TYPE_CHECKING:
    # Recipes bring torch with them, which text does not need.
    from elision.recipe import Recipe

KINDS = {"wordpiece": WordPiece, "bpe": ByteLevelBPE, "unigram": Unigram, "sentencepiece-bpe": SentencePieceBPE}


@dataclasses.dataclass(frozen=True)
class Prepare:
    """Turn raw text into a token store: read, clean, train a tokenizer (or take one), tokenise.

    Inputs are .txt, .jsonl, .json, .csv, .tsv or .parquet files (also .gz, .zst, .xz, .bz2), folders of them, globs,
    "-" for standard input, or names of `datasets` data sets ("name" or "name:configuration"). "ne=news.txt" says that the
    language of news.txt is ne, "code:Books=novels/" that the control code of novels/ is Books (CTRL; a tokenizer that is
    trained here gets a symbol for every code, <|Books|>). Parallel text (translations, or other pairs of which one side
    is to be written) goes into the same store, each pair kept together. Memory stays bounded whatever the size. An
    interrupted run continues when the same command is given again.

    For example:

    elision prepare books/ --out store --recipe bert-tiny

    elision prepare news.jsonl.gz --out store --tokenizer bpe --vocab-size 16000 --reading.language-field lang

    elision prepare comments.txt --out store --recipe bert-mini --tokenizer unigram --vocab-size 32000

    elision prepare --corpus pydocs --out store --tokenizer wordpiece --vocab-size 8192

    elision prepare code:Books=novels/ code:News=news.jsonl.gz --out store --recipe ctrl-tiny

    elision prepare en=en.txt ne=ne.txt --parallel train.en train.ne --languages en ne --out store --recipe xlm-tiny
    """

    inputs: tyro.conf.Positional[tuple[str, ...]] = ()
    """Files, folders, globs, `datasets` names, or - for standard input."""
    parallel: tuple[str, ...] = ()
    """Parallel text: plain text files in twos, where line n of one translates line n of the other, or files that hold
    both sides (.tsv, .csv, .jsonl, .json, .parquet with a column for each; .tmx); all of them also compressed."""
    languages: tuple[str, ...] = ()
    """Languages of the first and the second side of --parallel: two for all of it, or two for each corpus in turn. None
    where the pairs are no translations but, say, texts and their summaries."""
    parallel_fields: tuple[str, str] | None = None
    """Columns of the two sides in --parallel tables: names, or numbers from 0 in a table without header (if not given:
    the columns named as the languages, or source and target without languages; else the only two)."""
    out: Annotated[Path, tyro.conf.arg(metavar="STORE")] = Path("store")
    """Folder to write the store to."""
    corpus: Literal["pydocs"] | None = None
    """A corpus that needs no files: `pydocs` is the documentation of the Python packages on this machine."""
    recipe: str | None = None
    """Train the tokenizer that this recipe asks for (`elision recipes` lists them)."""
    tokenizer: str | None = None
    """Train a tokenizer of this kind (wordpiece, bpe, unigram, sentencepiece-bpe), or use the trained one at this path. A
    kind beside --recipe replaces the recipe's own: its size and case stay, the layout is one that the recipe can be trained
    with."""
    layout: Literal["t5", "xlnet", "albert", "xlm-r", "marian", "gpt2", "roberta", "xlm", "blenderbot"] | None = None
    """Special symbols of the tokenizer to train. unigram: t5, xlnet, albert, xlm-r or marian; bpe: gpt2, roberta, xlm or
    blenderbot; the others have one only. Recipes like BERT need cls, sep and mask (albert, xlnet, xlm-r, roberta, xlm),
    those like GPT-2 need eos (gpt2, blenderbot, roberta, xlm, t5, xlnet, xlm-r, marian)."""
    vocab_size: int | None = None
    """Number of symbols of the tokenizer to train."""
    case: Literal["fold", "keep"] | None = None
    """Train a tokenizer that folds upper case into lower case or keeps it (if not given: as the recipe says; without
    a recipe wordpiece folds and unigram keeps)."""
    sample_megabytes: float = 100.0
    """At most this many million characters, spread over the corpus, train the tokenizer."""
    validation: float = 0.02
    """Share of the documents that is held out, chosen by a hash of the text."""
    sentences: bool = True
    """Record where sentences begin (next-sentence and sentence-order objectives need it)."""
    shard_tokens: int = SHARD_TOKENS
    """Tokens in one file of the store."""
    reading: Reading = dataclasses.field(default_factory=Reading)
    cleaning: Cleaning = dataclasses.field(default_factory=Cleaning)


def main(arguments: list[str]) -> int:
    """Run `elision prepare`."""
    from elision.text.parallel import parallel_sources
    from elision.text.prepare import prepare
    from elision.text.pydocs import PydocsSource

    options = tyro.cli(Prepare, args=arguments, prog="elision prepare")
    inputs = [*options.inputs, *([PydocsSource()] if options.corpus == "pydocs" else [])]
    if options.parallel:
        inputs += parallel_sources(options.parallel, options.languages, options.parallel_fields)
    elif options.languages:
        raise InputError("--languages names the sides of --parallel; one file's language is said as LANGUAGE=FILE.")
    if not inputs:
        raise InputError(
            "There is nothing to read: give files, folders or `datasets` names, --parallel FILES or --corpus pydocs."
        )
    tokenizer = choose_tokenizer(options.recipe, options.tokenizer, options.layout, options.vocab_size, options.case)
    was_there = (options.out / MANIFEST).is_file()
    started = time.monotonic()
    store = prepare(
        inputs,
        options.out,
        tokenizer,
        reading=options.reading,
        cleaning=options.cleaning,
        validation=options.validation,
        sentences=options.sentences,
        sample_megabytes=options.sample_megabytes,
        shard_tokens=options.shard_tokens,
    )
    if was_there:
        num_tokens = sum(store.split(name).num_tokens for name in store.splits)
        print(f"{options.out} holds this very store already ({num_tokens:,} tokens): nothing to do.")
    else:
        print_summary(store, time.monotonic() - started, options.recipe)
    return 0


def choose_tokenizer(
    recipe: str | None,
    tokenizer: str | None,
    layout: str | None = None,
    vocab_size: int | None = None,
    case: str | None = None,
) -> TokenizerSpec | str:
    """Return the tokenizer to train, or the path of a trained one, that the options ask for.

    Raises: InputError when they contradict each other or say nothing.
    """
    if tokenizer is not None and tokenizer not in KINDS:
        if recipe is not None:
            raise InputError(
                f"--tokenizer {tokenizer} is taken for the path of a trained tokenizer, which leaves --recipe nothing to "
                f"say: leave one of the two out, or name a kind to train ({', '.join(KINDS)})."
            )
        if vocab_size is not None or case is not None or layout is not None:
            raise InputError(
                f"--vocab-size, --case and --layout only go with a tokenizer to train, but {tokenizer!r} is taken for "
                f"the path of a trained one (to train: {', '.join(KINDS)})."
            )
        return tokenizer
    if recipe is not None:
        from elision import recipes

        spec = _for_recipe(recipes.get(recipe), tokenizer, layout)
    elif tokenizer is not None:
        spec = _with_layout(KINDS[tokenizer](), layout)
    else:
        raise InputError(f"Which tokenizer? Give --recipe NAME, --tokenizer {'|'.join(KINDS)}, or --tokenizer PATH.")
    if vocab_size is not None:
        spec = dataclasses.replace(spec, vocab_size=vocab_size)
    if case is not None:
        if isinstance(spec, ByteLevelBPE | SentencePieceBPE):
            raise InputError(f"--case does not go with {_kind(spec)}, which keeps every letter as it is.")
        spec = dataclasses.replace(spec, lowercase=case == "fold")
    return spec


def needed_roles(recipe: "Recipe") -> list[str]:
    """Return which special symbols the tokenizer of a store must have for the recipe to be trained on it."""
    needed = recipe.segmenter.needs_roles | recipe.noise.needs_roles
    return [role for role in ROLES if role in needed]


def _for_recipe(recipe: "Recipe", kind: str | None, layout: str | None) -> TokenizerSpec:
    """Return the recipe's tokenizer, or one of another kind or layout that has the symbols the recipe needs."""
    own, needed = recipe.tokenizer, needed_roles(recipe)
    if kind is None or isinstance(own, KINDS[kind]):
        spec = _with_layout(own, layout)
    else:
        # How many symbols and whether case counts belong to the recipe, not to the kind.
        kept = {"vocab_size": own.vocab_size, "extra_special_tokens": own.extra_special_tokens}
        keeps_case = (ByteLevelBPE, SentencePieceBPE)
        if not isinstance(own, keeps_case) and KINDS[kind] not in keeps_case:
            kept["lowercase"] = own.lowercase
        spec = KINDS[kind](**kept)
        fitting = [other for other in layouts(spec) if set(needed) <= set(other.roles)]
        spec = _with_layout(fitting[0] if fitting and layout is None else spec, layout)
    lacking = [role for role in needed if role not in spec.roles]
    if lacking:
        having = [name for name, other in KINDS.items() if any(set(needed) <= set(s.roles) for s in layouts(other()))]
        raise InputError(
            f"{recipe.name} needs the special symbols {', '.join(needed)}, but {_describe(spec)} has no "
            f"{' and no '.join(lacking)}. Leave out --layout, or choose another --tokenizer ({', '.join(having)})."
        )
    return spec


def _with_layout(spec: TokenizerSpec, layout: str | None) -> TokenizerSpec:
    if layout is None:
        return spec
    if isinstance(spec, WordPiece | SentencePieceBPE):
        raise InputError(f"--layout {layout} does not go with {_kind(spec)}, which has one layout only: leave it out.")
    known = {other.layout: other for other in layouts(spec)}
    if layout not in known:
        raise InputError(f"--layout {layout} does not go with {_kind(spec)}, whose layouts are: {', '.join(known)}.")
    return known[layout]


def _kind(spec: TokenizerSpec) -> str:
    return next(name for name, kind in KINDS.items() if isinstance(spec, kind))


def _describe(spec: TokenizerSpec) -> str:
    return _kind(spec) if isinstance(spec, WordPiece | SentencePieceBPE) else f"{_kind(spec)} with layout {spec.layout}"


def print_summary(store: Store, elapsed_seconds: float, recipe: str | None) -> None:
    """Print what the store holds and the next command to type."""
    from rich.console import Console
    from rich.table import Table

    from elision.progress import duration, quantity
    from elision.text.cleaning import CHANGED, DROPPED

    console = Console(file=sys.stdout, highlight=False)
    console.print(f"token store {store.path}", markup=False, soft_wrap=True, style="bold")
    table = Table(box=None, pad_edge=False)
    table.add_column("")
    splits = [store.split(name) for name in store.splits]
    for split in splits:
        table.add_column(split.name, justify="right")
    for title, name in (("documents", "num_documents"), ("sentences", "num_sentences"), ("tokens", "num_tokens")):
        table.add_row(title, *(f"{getattr(split, name):,}" for split in splits))
    if any(split.num_pairs for split in splits):
        table.add_row("pairs", *(f"{split.num_pairs:,}" for split in splits))
    table.add_row("text", *(f"{quantity(split.num_bytes)}B" for split in splits))
    table.add_row("bytes per token", *(f"{split.num_bytes / split.num_tokens:.2f}" for split in splits))
    table.add_row("shards", *(str(len(store.manifest["splits"][split.name]["shards"])) for split in splits))
    console.print(table)
    cleaning = store.manifest["cleaning"]
    for verb, rules in (("dropped", DROPPED), ("changed", CHANGED)):
        counted = [f"{cleaning[rule]:,} {what}" for rule, what in rules.items() if cleaning.get(rule)]
        console.print(f"{verb:<12}{', '.join(counted) or 'nothing'}", markup=False, soft_wrap=True)
    if cleaning["invalid_at"]:
        console.print(f"{'invalid at':<12}{', '.join(cleaning['invalid_at'][:5])}", markup=False, soft_wrap=True)
    total = sum(split.num_bytes for split in splits)
    tokenizer = store.manifest["tokenizer"]
    size, dtype = tokenizer["vocab_size"], store.manifest["dtype"]
    if store.languages:
        console.print(f"{'languages':<12}{', '.join(store.languages)}", markup=False, soft_wrap=True)
    if store.codes:
        console.print(f"{'codes':<12}{', '.join(store.codes)}", markup=False, soft_wrap=True)
    console.print(f"{'tokenizer':<12}{tokenizer['kind']}, {size:,} symbols, ids {dtype}", markup=False, soft_wrap=True)
    console.print(f"{'took':<12}{duration(elapsed_seconds)}, {quantity(total / max(elapsed_seconds, 1e-9))}B/s")
    console.print(f"{'fingerprint':<12}{store.fingerprint[:32]}", markup=False, soft_wrap=True)
    console.print(
        f"\nnext: elision pretrain {recipe or 'RECIPE'} --data {shlex.quote(str(store.path))}",
        markup=False,
        soft_wrap=True,
    )
