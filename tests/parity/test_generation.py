"""What is written equals what `generate` of transformers writes, token for token: greedy, searched, in batches."""

import functools
import itertools
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
import transformers

import elision
from elision.generation.decode import GeneratedIds, generate_batch_ids, generate_ids
from elision.generation.decoding import Decoding, Symbols
from elision.generation.reader import Reader
from elision.model.language_model import LanguageModel
from tests.parity import reference

pytestmark = pytest.mark.parity

PAD, END, START = 1, 2, 2
V = reference.VOCAB_SIZE
SHAPE = {"vocab_size": V, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 48}
SIDES = {
    "vocab_size": V, "d_model": 32, "encoder_layers": 2, "decoder_layers": 2, "encoder_attention_heads": 4,
    "decoder_attention_heads": 4, "encoder_ffn_dim": 48, "decoder_ffn_dim": 48, "max_position_embeddings": 64,
    "pad_token_id": PAD, "eos_token_id": END, "bos_token_id": 0, "decoder_start_token_id": START, "forced_eos_token_id": None,
}  # fmt: skip

CAUSAL = {
    "gpt2": (transformers.GPT2LMHeadModel, transformers.GPT2Config(
        vocab_size=V, n_embd=32, n_layer=2, n_head=4, n_positions=64, bos_token_id=0, eos_token_id=0)),
    "llama": (transformers.LlamaForCausalLM, transformers.LlamaConfig(
        **SHAPE, num_key_value_heads=2, max_position_embeddings=64)),
    "mistral": (transformers.MistralForCausalLM, transformers.MistralConfig(
        **SHAPE, num_key_value_heads=2, max_position_embeddings=64, sliding_window=5)),
    "gpt_neox": (transformers.GPTNeoXForCausalLM, transformers.GPTNeoXConfig(**SHAPE, max_position_embeddings=64)),
    "gpt_neo": (transformers.GPTNeoForCausalLM, transformers.GPTNeoConfig(
        vocab_size=V, hidden_size=32, num_layers=2, num_heads=4, intermediate_size=48, max_position_embeddings=64,
        attention_types=[[["global", "local"], 1]], window_size=5, bos_token_id=0, eos_token_id=0)),
}  # fmt: skip
BOTH_SIDES = {
    "bart": (transformers.BartForConditionalGeneration, transformers.BartConfig(**SIDES)),
    "t5": (transformers.T5ForConditionalGeneration, transformers.T5Config(
        vocab_size=V, d_model=32, d_kv=8, d_ff=48, num_layers=2, num_heads=4, pad_token_id=PAD, eos_token_id=END,
        decoder_start_token_id=START)),
}  # fmt: skip
ALL = CAUSAL | BOTH_SIDES


@functools.cache
def theirs(name: str) -> transformers.PreTrainedModel:
    """Return a tiny model of theirs with random weights, float64; what it writes depends on what it reads."""
    kind, config = ALL[name]
    # Their eager attention writes nonsense after padding in float64.
    config._attn_implementation = "sdpa" if kind._supports_sdpa else "eager"
    torch.manual_seed(3)
    model = reference.scrambled(kind(config), torch.float64)
    with torch.no_grad():
        for part, parameter in model.named_parameters():
            # A tied table alone would write the same token again and again.
            if "wpe" in part or "embed_positions" in part:
                parameter.mul_(5)
    return model


@pytest.fixture(scope="module")
def ours(tmp_path_factory: pytest.TempPathFactory) -> dict[str, LanguageModel]:
    def loaded(name: str) -> LanguageModel:
        folder = tmp_path_factory.mktemp(name)
        theirs(name).save_pretrained(folder)
        return elision.load(folder).model

    return {name: loaded(name) for name in ALL}


def prompts(lengths: Sequence[int] = (4, 9, 6, 1)) -> list[list[int]]:
    return [reference.token_ids(1, length, seed)[0].tolist() for seed, length in enumerate(lengths)]


def expected(
    name: str, rows: list[list[int]], end: int | None, padded: bool = False, **settings: object
) -> list[list[int]]:
    """Return what theirs writes after each prompt, each alone, or all together padded on the left."""
    if not padded and len(rows) > 1:
        return [text for row in rows for text in expected(name, [row], end, **settings)]
    width = max(map(len, rows))
    ids = torch.tensor([[PAD] * (width - len(row)) + row for row in rows])
    real = torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in rows])
    written = theirs(name).generate(
        ids, attention_mask=real, do_sample=False, eos_token_id=end, pad_token_id=PAD, **settings
    )
    begin = 1 if name in BOTH_SIDES else width
    return [list(itertools.takewhile(lambda token: token != end, row)) for row in written[:, begin:].tolist()]


def symbols(name: str, end: int | None, **others: object) -> Symbols:
    start = START if name in BOTH_SIDES else None
    return Symbols(limit=V, ends=() if end is None else (end,), start=start, **others)


def flat(texts: list[list[GeneratedIds]]) -> list[list[int]]:
    return [list(text.ids) for each in texts for text in each]


def common_end(name: str, model: LanguageModel) -> int:
    """Return a token that ends texts early, but none at once: one that is written often."""
    texts = flat(generate_batch_ids(model, prompts(), Decoding(12), symbols(name, None)))
    at_once = {token for text in texts for token in text[:2]}
    tokens = [token for text in texts for token in text[2:] if token not in at_once]
    return max(set(tokens), key=tokens.count)


@pytest.mark.parametrize("name", ALL)
def test_greedy_texts_are_equal_with_and_without_cache_alone_and_in_a_batch(
    name: str, ours: dict[str, LanguageModel]
) -> None:
    model, rows = ours[name], prompts()
    for end in (None, common_end(name, model)):
        wanted = expected(name, rows, end, max_new_tokens=16)
        assert len({token for text in wanted for token in text}) > 2, "the comparison needs texts that differ"
        for cache in (True, False):
            alone = [list(generate_ids(model, row, Decoding(16), symbols(name, end), cache=cache)) for row in rows]
            assert alone == wanted
            assert flat(generate_batch_ids(model, rows, Decoding(16), symbols(name, end), cache=cache)) == wanted


SEARCHES = [
    {"num_beams": 2},
    {"num_beams": 4, "length_penalty": 2.0, "early_stopping": "full"},
    {"num_beams": 3, "length_penalty": 0.0, "early_stopping": "certain"},
    {"num_beams": 3, "length_penalty": -0.5},
    {"num_beams": 4, "length_penalty": 1.5, "early_stopping": "certain", "min_tokens": 6},
    {"num_beams": 3, "no_repeat_ngram": 2, "early_stopping": "full"},
    {"num_beams": 2, "repetition_penalty": 1.4},
]
THEIR_NAMES = {
    "no_repeat_ngram": "no_repeat_ngram_size",
    "no_repeat_source_ngram": "encoder_no_repeat_ngram_size",
    "min_tokens": "min_new_tokens",
}
STOPPING = {"likely": False, "full": True, "certain": "never"}


def named(settings: dict[str, object]) -> dict[str, object]:
    """Return settings of ours under the names of theirs."""
    values = {THEIR_NAMES.get(name, name): value for name, value in settings.items()}
    if "num_beams" in values:
        values["early_stopping"] = STOPPING[values.get("early_stopping", "likely")]
    return values


@pytest.mark.parametrize("search", SEARCHES, ids=str)
@pytest.mark.parametrize("name", ALL)
def test_searched_texts_are_equal_best_first(
    name: str, search: dict[str, object], ours: dict[str, LanguageModel]
) -> None:
    model, rows = ours[name], prompts()
    end = common_end(name, model)
    wanted = expected(name, rows, end, max_new_tokens=12, num_return_sequences=2, **named(search))
    texts = generate_batch_ids(model, rows, Decoding(12, num_texts=2, **search), symbols(name, end))
    assert flat(texts) == wanted
    assert all(first.score >= second.score for first, second in texts)


@pytest.mark.parametrize("settings", [{"repetition_penalty": 1.3}, {"no_repeat_ngram": 2}, {"min_tokens": 9}], ids=str)
@pytest.mark.parametrize("name", ["gpt2", "bart"])
def test_greedy_texts_under_constraints_are_equal(
    name: str, settings: dict[str, object], ours: dict[str, LanguageModel]
) -> None:
    model, rows = ours[name], prompts()
    end = common_end(name, model)
    wanted = expected(name, rows, end, max_new_tokens=12, **named(settings))
    assert flat(generate_batch_ids(model, rows, Decoding(12, **settings), symbols(name, end))) == wanted
    free = flat(generate_batch_ids(model, rows, Decoding(12), symbols(name, end)))
    assert free != wanted, "the comparison needs a constraint that changes something"


def test_ngrams_of_the_source_bad_words_and_forced_tokens_are_as_theirs(ours: dict[str, LanguageModel]) -> None:
    model, rows = ours["bart"], prompts()
    free = flat(generate_batch_ids(model, rows, Decoding(10), symbols("bart", None)))
    bad = ((free[0][1],), (free[1][2], free[1][3]))
    wanted = expected(
        "bart", rows, None, max_new_tokens=10, num_beams=2, encoder_no_repeat_ngram_size=1, forced_bos_token_id=77,
        forced_eos_token_id=88, bad_words_ids=[list(each) for each in bad],
    )  # fmt: skip
    decoding = Decoding(10, num_beams=2, no_repeat_source_ngram=1)
    texts = generate_batch_ids(model, rows, decoding, symbols("bart", None, first=77, last=88, bad=bad))
    assert flat(texts) == wanted
    assert {(text[0], text[-1]) for text in flat(texts)} == {(77, 88)}


def test_batches_that_theirs_pads_on_the_left_are_equal_too(ours: dict[str, LanguageModel]) -> None:
    rows = prompts()
    for name in CAUSAL:
        end = common_end(name, ours[name])
        wanted = expected(name, rows, end, padded=True, max_new_tokens=10, num_beams=3)
        assert flat(generate_batch_ids(ours[name], rows, Decoding(10, num_beams=3), symbols(name, end))) == wanted


@pytest.mark.parametrize("name", ALL)
def test_scores_with_a_cache_are_those_of_reading_everything_again(name: str, ours: dict[str, LanguageModel]) -> None:
    model, rows = ours[name], prompts()
    start = START if name in BOTH_SIDES else None
    readers = [Reader(model, rows, start, 20, cache=cache) for cache in (True, False)]
    for reader in readers:
        reader.repeat(2)
    following = reference.token_ids(12, 8, seed=5)
    for number, tokens in enumerate(following):
        scores = [reader.scores for reader in readers]
        torch.testing.assert_close(scores[0], scores[1], rtol=0, atol=1e-10)
        # Hypotheses change places, within their example.
        order = torch.tensor([1, 0, 2, 3, 4, 4, 7, 6]) if number % 3 == 1 else None
        for reader in readers:
            reader.read(tokens, order)


def test_the_likelihood_of_a_text_is_the_sum_that_the_model_gives_it(ours: dict[str, LanguageModel]) -> None:
    (row,) = prompts((5,))
    end = common_end("gpt2", ours["gpt2"])
    for decoding in (Decoding(9), Decoding(9, num_beams=3), Decoding(9, temperature=1.5, seed=1, top_k=20)):
        ((text,),) = generate_batch_ids(ours["gpt2"], [row], decoding, symbols("gpt2", end))
        ids = torch.tensor([[*row, *text.ids, *([end] if text.reason == "end" else [])]])
        with torch.no_grad():
            likely = theirs("gpt2")(ids[:, :-1]).logits[0, 4:].log_softmax(-1)
        assert text.log_likelihood == pytest.approx(float(likely.gather(1, ids[0, 5:, None]).sum()), abs=1e-6)


def test_a_briefly_trained_model_writes_as_theirs(tmp_path: Path) -> None:
    torch.manual_seed(0)
    kind, config = CAUSAL["gpt2"]
    model = kind(config).double()
    text = torch.arange(400) * 7 % 50 + torch.arange(400) // 80
    optimizer = torch.optim.Adam(model.parameters(), 3e-3)
    for step in range(30):
        rows = torch.stack([text[at : at + 32] for at in range(step, step + 240, 30)])
        loss = model(rows, labels=rows).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    assert float(loss.detach()) < 3.5
    model.eval().save_pretrained(tmp_path)
    ours = elision.load(tmp_path).model
    rows = [text[at : at + 3 + at % 7].tolist() for at in range(0, 60, 11)]
    for settings in ({}, {"num_beams": 4}, {"num_beams": 4, "no_repeat_ngram": 3, "length_penalty": 2.0}):
        wanted = [
            model.generate(
                torch.tensor([row]), attention_mask=torch.ones(1, len(row)), do_sample=False, max_new_tokens=20,
                eos_token_id=None, pad_token_id=PAD, **named(settings),
            )[0, len(row) :].tolist()
            for row in rows
        ]  # fmt: skip
        assert flat(generate_batch_ids(ours, rows, Decoding(20, **settings), symbols("gpt2", None))) == wanted
