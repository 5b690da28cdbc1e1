"""Texts in, texts out: batches, samples, stop texts, encoders and prefixes, packed weights."""

import dataclasses
from pathlib import Path

import pytest
import torch

import elision
from elision.errors import InputError
from elision.generation.decode import generate_batch_ids, generate_ids
from elision.generation.decoding import Decoding, Symbols
from elision.generation.packing import can_pack, product
from elision.generation.reader import Reader
from elision.generation.step import prepared
from elision.generation.stream import stream_text
from elision.loaded import Loaded
from elision.model.encoder_decoder import EncoderDecoder
from elision.model.language_model import LanguageModel
from elision.model.position import LearnedPositions, RelativePositions, RotaryPositions
from elision.model.transformer import Transformer
from elision.objectives import CausalLM, SequenceLM
from elision.text.tokenizer import ByteLevelBPE
from elision.train.checkpoint import write_weights
from tests import tiny
from tests.parity.reference import scrambled
from tests.unit.export.test_folders import checkpoint

STACK = Transformer(
    num_layers=2, hidden_size=32, num_heads=2, feedforward_size=48, visibility="causal", norm="pre", final_norm=True,
    dropout=0.0, attention_dropout=0.0, positions=RelativePositions(num_buckets=8, max_distance=16),
)  # fmt: skip
ROBERTA = dataclasses.replace(tiny.BYTES, layout="roberta")


@pytest.fixture(scope="module")
def gpt2(tmp_path_factory: pytest.TempPathFactory) -> Loaded:
    loaded = elision.load(checkpoint(tmp_path_factory.mktemp("gpt2") / "ours", tiny.recipe("gpt2-tiny")))
    scrambled(loaded.model, torch.float64)
    with torch.no_grad():
        # The tied table alone would write the same token again and again.
        loaded.model.backbone.embeddings.positions.table.weight.mul_(5)
    return loaded


@pytest.fixture(scope="module")
def bart(tmp_path_factory: pytest.TempPathFactory) -> Loaded:
    """Return an encoder-decoder whose source is framed as <s> ... </s>."""
    folder = tmp_path_factory.mktemp("bart") / "ours"
    recipe = tiny.recipe("bart-tiny")
    tokenizer = tiny.tokenizer(ROBERTA)
    folder.mkdir(parents=True)
    recipe.save(folder / "recipe.json")
    tokenizer.save(folder / "tokenizer")
    write_weights(folder, LanguageModel(recipe.backbone, recipe.objectives, tokenizer.vocabulary.size))
    loaded = elision.load(folder)
    scrambled(loaded.model, torch.float64)
    return loaded


def encoder_decoder() -> LanguageModel:
    torch.manual_seed(0)
    encoder = dataclasses.replace(STACK, visibility="bidirectional")
    model = LanguageModel(EncoderDecoder(encoder, STACK, start="pad"), (SequenceLM(),), 60)
    return scrambled(model, torch.float64)


PROMPTS = [[7, 8], [9, 10, 11, 12, 13], [14], [7, 9, 8]]


@pytest.mark.parametrize(
    "decoding",
    [
        Decoding(60),
        Decoding(30, temperature=1.3, top_k=20, seed=3, num_samples=3),
        Decoding(20, num_beams=3, num_texts=2, length_penalty=0.3),
        Decoding(20, no_repeat_ngram=2, repetition_penalty=1.2),
    ],
    ids=["slides", "samples", "beams", "constraints"],
)
def test_each_prompt_of_a_batch_gets_what_it_gets_alone(gpt2: Loaded, decoding: Decoding) -> None:
    assert gpt2.model.backbone.settings.max_length < 60
    symbols = Symbols(200, ends=(11, 12, 13, 14, 15, 40, 41, 42))
    together = generate_batch_ids(gpt2.model, PROMPTS, decoding, symbols, num_rows=64)
    alone = [generate_batch_ids(gpt2.model, [prompt], decoding, symbols)[0] for prompt in PROMPTS]
    for ours, theirs in zip(together, alone, strict=True):
        assert [(text.ids, text.reason) for text in ours] == [(text.ids, text.reason) for text in theirs]
        assert [text.log_likelihood for text in ours] == pytest.approx(
            [text.log_likelihood for text in theirs], abs=1e-9
        )
    assert len({text.ids for texts in together for text in texts}) > 3


def test_a_stream_is_the_first_sample_of_a_batch(gpt2: Loaded) -> None:
    decoding = Decoding(20, temperature=1.0, seed=9)
    ((text,),) = generate_batch_ids(gpt2.model, [[7, 8]], decoding, Symbols(200))
    assert list(text.ids) == list(generate_ids(gpt2.model, [7, 8], decoding, Symbols(200)))


def test_sample_and_rank_keeps_the_likeliest_of_the_samples(gpt2: Loaded) -> None:
    decoding = Decoding(8, temperature=1.5, seed=0, num_samples=12)
    (all_texts,) = generate_batch_ids(gpt2.model, [[7]], decoding)
    assert len({text.ids for text in all_texts}) > 6
    (ranked,) = generate_batch_ids(gpt2.model, [[7]], dataclasses.replace(decoding, num_texts=2))
    best = sorted(all_texts, key=lambda text: -text.log_likelihood)
    assert [text.ids for text in ranked] == [text.ids for text in best[:2]]
    assert list(generate_ids(gpt2.model, [7], dataclasses.replace(decoding, num_texts=1))) == list(best[0].ids)


def brute_force(
    model: LanguageModel, source: list[int], length: int, limit: int
) -> list[tuple[float, tuple[int, ...]]]:
    """Return every text of `length` tokens with its log-likelihood, the likeliest first."""
    texts = [(0.0, ())]
    for _ in range(length):
        reader = Reader(model, [source] * len(texts), 0, 5, limit, cache=False)
        for place in range(len(texts[0][1])):
            reader.read(torch.tensor([ids[place] for _, ids in texts]))
        likely = reader.scores.log_softmax(-1).tolist()
        texts = [
            (total + more, (*ids, token))
            for (total, ids), row in zip(texts, likely, strict=True)
            for token, more in enumerate(row)
        ]
    return sorted(texts, reverse=True)


def test_beams_that_leave_nothing_out_find_the_likeliest_texts() -> None:
    model = encoder_decoder()
    wanted = brute_force(model, [5, 6, 7], 3, 6)
    (found,) = generate_batch_ids(model, [[5, 6, 7]], Decoding(3, num_beams=36, num_texts=5), Symbols(6, start=0))
    assert [text.ids for text in found] == [ids for _, ids in wanted[:5]]
    assert [text.log_likelihood for text in found] == pytest.approx([total for total, _ in wanted[:5]])


def test_an_encoder_decoder_reads_each_source_once_and_longer_ones_change_nothing() -> None:
    model = encoder_decoder()
    calls = []
    model.backbone.encoder.register_forward_hook(lambda *_: calls.append(1))
    sources = [[5, 6], [9, 8, 7, 6, 5], [30, 31, 32]]
    for decoding in (Decoding(12), Decoding(12, num_beams=4), Decoding(12, temperature=1.0, seed=1, num_samples=2)):
        calls.clear()
        together = generate_batch_ids(model, sources, decoding, Symbols(60, ends=(17, 18, 19), start=0))
        assert len(calls) == 1
        for source, texts in zip(sources, together, strict=True):
            (alone,) = generate_batch_ids(model, [source], decoding, Symbols(60, ends=(17, 18, 19), start=0))
            assert [text.ids for text in alone] == [text.ids for text in texts]


def test_a_prefix_model_reads_its_prompt_both_ways_and_then_writes() -> None:
    torch.manual_seed(0)
    model = LanguageModel(dataclasses.replace(STACK, visibility="prefix"), (SequenceLM(),), 60)
    scrambled(model, torch.float64)
    symbols = Symbols(60, start=3)
    texts = generate_batch_ids(model, PROMPTS, Decoding(10), symbols)
    for prompt, (text,) in zip(PROMPTS, texts, strict=True):
        assert list(text.ids) == list(generate_ids(model, prompt, Decoding(10), symbols, cache=True))
    causal = LanguageModel(STACK, (CausalLM(),), 60)
    causal.backbone.load_state_dict(model.backbone.state_dict())
    causal.double().eval()
    prompts = [[3, *prompt] for prompt in PROMPTS]
    assert [text.ids for (text,) in generate_batch_ids(causal, prompts, Decoding(10))] != [
        text.ids for (text,) in texts
    ]


def test_stop_texts_end_streams_and_batches_alike_and_are_left_out(gpt2: Loaded) -> None:
    whole = "".join(gpt2.generate("ba", num_tokens=40, temperature=1.0, seed=2))
    stop = whole[9:12]
    assert whole.index(stop) > 0
    decoding = Decoding(40, temperature=1.0, seed=2, stop=(stop, "never there"))
    wanted = whole[: whole.index(stop)]
    assert "".join(gpt2.generate("ba", decoding)) == wanted
    ((text,), _) = gpt2.generate_batch(["ba", "do ki"], decoding)
    assert (text.text, text.reason) == (wanted, "stop")


def test_what_may_become_a_stop_text_is_held_back_until_it_cannot() -> None:
    tokenizer = ByteLevelBPE(vocab_size=257).train(["abcd"])
    ids = tokenizer.encode("xabyabcz")
    assert list(stream_text(tokenizer, [], ids, ("abc",))) == ["x", "aby"]
    assert "".join(stream_text(tokenizer, [], ids, ("abq",))) == "xabyabcz"
    assert "".join(stream_text(tokenizer, [], tokenizer.encode("xab"), ("abc",))) == "xab"
    assert "".join(stream_text(tokenizer, tokenizer.encode("a"), tokenizer.encode("bc"), ("ab", "c"))) == "b"


def test_bad_words_are_written_neither_at_the_start_nor_after_a_space(gpt2: Loaded) -> None:
    free = [text.text for text in gpt2.generate_batch(["ba", "do", "lu me"], Decoding(30, temperature=1.0, seed=1))[0]]
    tokens = gpt2.tokenizer.encode(free[0])
    word = next(text for text in gpt2.tokenizer.tokens(tokens) if text.isalpha())
    decoding = Decoding(200, temperature=1.0, seed=1, bad_words=(word,))
    symbols = Symbols.of(decoding, gpt2.model, gpt2.tokenizer)
    ((text,),) = gpt2.generate_batch(["ba"], decoding)
    for sequence in symbols.bad:
        assert all(text.ids[at : at + len(sequence)] != sequence for at in range(len(text.ids)))


def test_a_source_is_framed_as_its_encoder_was_trained(bart: Loaded) -> None:
    words = bart.tokenizer.vocabulary
    ids = [words.cls, *bart.tokenizer.encode("ba do ki"), words.sep]
    symbols = Symbols.of(Decoding(), bart.model, bart.tokenizer)
    assert (symbols.start, symbols.ends) == (words.sep, (words.eos,))
    assert symbols.bad == ()
    ((wanted,),) = generate_batch_ids(bart.model, [ids], Decoding(9), symbols)
    ((text,),) = bart.generate_batch(["ba do ki"], Decoding(9))
    assert text.ids == wanted.ids
    assert "".join(bart.generate("ba do ki", Decoding(9))) == text.text
    framed_by_hand = "<s>ba do ki</s>"
    assert bart.generate_batch([framed_by_hand], Decoding(9), framed=False)[0][0] == text


def test_marian_never_writes_the_padding_that_its_decoder_begins_with() -> None:
    recipe = tiny.recipe("marian-tiny")
    tokenizer = tiny.tokenizer(recipe.tokenizer)
    model = LanguageModel(recipe.backbone, recipe.objectives, tokenizer.vocabulary.size).eval()
    symbols = Symbols.of(Decoding(), model, tokenizer)
    assert symbols.bad == ((tokenizer.vocabulary.pad,),) and symbols.start == tokenizer.vocabulary.pad


def test_a_start_symbol_and_forced_symbols_are_named_as_they_are_written(bart: Loaded) -> None:
    words = bart.tokenizer.vocabulary
    decoding = Decoding(6, start="<mask>", first_token="<s>", last_token="</s>", min_tokens=5)
    symbols = Symbols.of(decoding, bart.model, bart.tokenizer)
    assert (symbols.start, symbols.first, symbols.last) == (words.mask, words.bos, words.eos)
    ((text,),) = bart.generate_batch(["ba"], decoding)
    assert text.ids[0] == words.bos and text.reason == "end" and len(text.ids) == 5
    with pytest.raises(
        InputError, match=r"start is '\[xx\]', which is no symbol of the tokenizer: its special ones are <s>"
    ):
        bart.generate("ba", Decoding(start="[xx]"))


def test_what_finds_no_room_is_refused(bart: Loaded) -> None:
    with pytest.raises(InputError, match="longer than the position table"):
        bart.generate("ba do " * 50)
    with pytest.raises(InputError, match="num_tokens is 99, but the decoder has"):
        bart.generate("ba", Decoding(99))
    with pytest.raises(InputError, match="a text to be read is empty"):
        generate_ids(bart.model, [], Decoding(), Symbols(300, start=2))
    settings = dataclasses.replace(tiny.recipe("gpt2-tiny").backbone, visibility="prefix")
    with pytest.raises(InputError, match="a prefix that slid"):
        generate_ids(LanguageModel(settings, (SequenceLM(),), 60), [7] * 20, Decoding(30), Symbols(60, start=3))


def test_packed_weights_compute_the_same() -> None:
    model = encoder_decoder().float()
    sources = [[5, 6], [9, 8, 7], [30, 31, 32], [4], [40, 41]]
    readers = [Reader(model, sources, 0, 9, weights=prepared(model, packed)) for packed in (False, True)]
    for tokens in torch.randint(0, 60, (4, 5)):
        torch.testing.assert_close(readers[0].scores, readers[1].scores, rtol=1e-5, atol=1e-5)
        for reader in readers:
            reader.read(tokens)
    weight, hidden = torch.randn(7, 5), torch.randn(9, 1, 5)
    bias = torch.randn(7)
    assert can_pack(weight) and not can_pack(weight.double())
    torch.testing.assert_close(product(weight, bias, True)(hidden), torch.nn.functional.linear(hidden, weight, bias))


STACKS = {
    "rotary, gated, shared heads": {
        "positions": RotaryPositions(share=0.5), "norm_kind": "rms", "gated": True, "num_key_value_heads": 1,
        "activation": "silu", "biases": "none",
    },
    "pairs, parallel, windows": {
        "positions": RotaryPositions(layout="pairs"), "parallel": True, "windows": (3, None), "biases": "output",
    },
    "post, learned, unscaled, wide heads": {
        "positions": LearnedPositions(num_positions=40), "norm": "post", "final_norm": False, "embedding_norm": True,
        "scale_attention": False, "scale_embeddings": True, "head_size": 24,
    },
    "biased, both ways": {"visibility": "prefix", "norm_kind": "rms"},
    "narrow table, shared blocks": {"embedding_size": 20, "sharing": "all", "positions": LearnedPositions(40)},
}  # fmt: skip


@pytest.mark.parametrize("changes", STACKS.values(), ids=STACKS)
def test_a_step_gives_the_states_of_the_backbone(changes: dict) -> None:
    torch.manual_seed(0)
    model = LanguageModel(dataclasses.replace(STACK, **changes), (CausalLM(),), 60)
    scrambled(model, torch.float64)
    padding = torch.tensor([0, 3, 1])
    caches = [model.backbone.cache(padding) for _ in range(2)]
    step = prepared(model).step
    with torch.inference_mode():
        begun = torch.randint(0, 60, (3, 6))
        for cache in caches:
            model.backbone.continue_with(begun, cache)
        for tokens in torch.randint(0, 60, (9, 3)):
            ours, theirs = step(tokens, caches[0]), model.backbone.continue_with(tokens[:, None], caches[1])[:, 0]
            torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-10)


def test_prompts_are_heard_of_when_they_are_done(gpt2: Loaded) -> None:
    heard: list[int] = []
    gpt2.generate_batch(["ba", "do", "ki"], Decoding(3), num_rows=2, hear=heard.append)
    assert heard == [2, 1]


def test_an_empty_batch_has_no_texts(gpt2: Loaded, tmp_path: Path) -> None:
    assert gpt2.generate_batch([], Decoding(3)) == []
