"""Guessing tokens changes how often a model is asked, and never what is written."""

import dataclasses

import pytest
import torch

from elision.generation.decode import generate_batch_ids, generate_ids
from elision.generation.decoding import Decoding, Symbols
from elision.generation.guessing import Guesses
from elision.generation.reader import Reader
from elision.model.encoder_decoder import EncoderDecoder
from elision.model.language_model import LanguageModel
from elision.model.position import LearnedPositions, RelativePositions
from elision.model.transformer import Transformer
from elision.objectives import CausalLM, SequenceLM
from tests.parity.reference import scrambled

STACK = Transformer(
    num_layers=2, hidden_size=32, num_heads=2, feedforward_size=48, visibility="causal", norm="pre", final_norm=True,
    dropout=0.0, attention_dropout=0.0, positions=LearnedPositions(num_positions=40),
)  # fmt: skip


def causal(**changes: object) -> LanguageModel:
    torch.manual_seed(0)
    return scrambled(LanguageModel(dataclasses.replace(STACK, **changes), (CausalLM(),), 60), torch.float64)


def test_what_followed_the_same_tokens_is_guessed_the_longest_context_first() -> None:
    guesses = Guesses([1, 2, 3, 4, 9, 2, 3, 5, 1, 2, 3], most=8)
    assert guesses.next() == [4, 9]
    assert Guesses([7, 2, 3, 4, 9, 5, 1, 2, 3], most=8).next() == [4, 9]
    assert Guesses([1, 2, 3, 4], most=8).next() == []
    assert Guesses([], most=8).next() == []
    # What goes round is guessed to go on so.
    going = Guesses([5, 6, 5, 6, 5, 6], most=8)
    going.learn(2, 2)
    going.learn(4, 4)
    assert going.next() == [5, 6, 5, 6, 5, 6, 5, 6]


def test_wrong_guesses_make_shorter_ones_and_pauses() -> None:
    guesses = Guesses([1, 1, 1, 1], most=8)
    guesses.learn(2, 2)
    assert len(guesses.next()) == 4
    guesses.learn(4, 3)
    assert len(guesses.next()) == 3
    guesses.learn(3, 0)
    assert [len(guesses.next()) for _ in range(3)] == [0, 2, 2]
    guesses.learn(2, 0)
    assert [len(guesses.next()) for _ in range(4)] == [0, 0, 0, 2]


@pytest.mark.parametrize("num_tokens", [1, 2, 30, 90])
def test_texts_are_the_same_with_and_without_guesses_even_when_the_context_slides(num_tokens: int) -> None:
    model = causal()
    for prompt in ([7], [7, 8, 9, 7, 8, 9, 7, 8], [3, 4, 3, 4, 50, 3, 4]):
        plain = list(generate_ids(model, prompt, Decoding(num_tokens, draft_tokens=0)))
        assert list(generate_ids(model, prompt, Decoding(num_tokens))) == plain
        ((one,),) = generate_batch_ids(model, [prompt], Decoding(num_tokens))
        ((other,),) = generate_batch_ids(model, [prompt], Decoding(num_tokens, draft_tokens=0))
        assert one.ids == other.ids == tuple(plain)
        assert one.log_likelihood == pytest.approx(other.log_likelihood, abs=1e-9)


def test_a_text_that_repeats_itself_takes_fewer_readings(monkeypatch: pytest.MonkeyPatch) -> None:
    model = causal()
    calls: list[int] = []
    read, read_guess = Reader.read, Reader.read_guess
    monkeypatch.setattr(Reader, "read", lambda self, tokens: calls.append(1) or read(self, tokens))
    monkeypatch.setattr(Reader, "read_guess", lambda self, ids: calls.append(len(ids)) or read_guess(self, ids))
    plain = list(generate_ids(model, [7], Decoding(36, draft_tokens=0)))
    assert calls == [1] * 35
    calls.clear()
    assert list(generate_ids(model, [7], Decoding(36))) == plain
    assert len(calls) < 20 and max(calls) > 3


def test_an_end_within_a_guess_ends_the_text() -> None:
    model = causal()
    plain = list(generate_ids(model, [7], Decoding(36, draft_tokens=0)))
    for end in set(plain):
        symbols = Symbols(60, ends=(end,))
        assert list(generate_ids(model, [7], Decoding(36), symbols)) == plain[: plain.index(end)]
        ((text,),) = generate_batch_ids(model, [[7]], Decoding(36), symbols)
        assert (text.ids, text.reason) == (tuple(plain[: plain.index(end)]), "end")


def test_an_encoder_decoder_guesses_too_and_windows_several_rows_and_draws_do_not() -> None:
    torch.manual_seed(0)
    free = dataclasses.replace(STACK, positions=RelativePositions(num_buckets=8, max_distance=16))
    settings = EncoderDecoder(dataclasses.replace(free, visibility="bidirectional"), free, start="pad")
    model = scrambled(LanguageModel(settings, (SequenceLM(),), 60), torch.float64)
    symbols = Symbols(60, start=0)
    assert list(generate_ids(model, [5, 6, 7], Decoding(40), symbols)) == list(
        generate_ids(model, [5, 6, 7], Decoding(40, draft_tokens=0), symbols)
    )
    assert Reader(model, [[5, 6]], 0, 9).room_to_guess > 1000
    assert Reader(model, [[5, 6], [7, 8]], 0, 9).room_to_guess == 0
    assert Reader(causal(windows=(3, None)), [[5, 6]], None, 9).room_to_guess == 0
    assert Reader(causal(), [[5, 6]], None, 9).room_to_guess == 38
    assert Reader(causal(), [[5, 6]], None, 9, cache=False).room_to_guess == 0
