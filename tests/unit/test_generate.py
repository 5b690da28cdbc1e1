"""Generation: sampling on written-out scores, the sliding context, text that streams."""

import dataclasses
from collections import Counter
from pathlib import Path

import pytest
import torch

import elision
from elision.errors import InputError
from elision.generation.decode import generate_batch_ids, generate_ids
from elision.generation.decoding import Decoding, Symbols
from elision.generation.sampling import Choice
from elision.generation.stream import stream_text
from elision.loaded import Loaded
from elision.text.tokenizer import ByteLevelBPE, Tokenizer, Unigram, WordPiece
from tests import tiny
from tests.parity.reference import scrambled
from tests.unit.export.test_folders import checkpoint

LOGITS = torch.tensor([0.5, 0.3, 0.15, 0.05]).log()


@pytest.fixture(scope="module")
def gpt2(tmp_path_factory: pytest.TempPathFactory) -> Loaded:
    loaded = elision.load(checkpoint(tmp_path_factory.mktemp("gpt2") / "ours", tiny.recipe("gpt2-tiny")))
    scrambled(loaded.model)
    return loaded


def drawn(decoding: Decoding, draws: int = 4000) -> dict[int, float]:
    choice = Choice(dataclasses.replace(decoding, seed=0), [[row] for row in range(draws)])
    counts = Counter(choice(LOGITS.expand(draws, 4)).tolist())
    return {token: count / draws for token, count in counts.items()}


def test_greedy_takes_the_likeliest() -> None:
    assert drawn(Decoding(temperature=0.0), 10) == {0: 1.0}


def test_temperature_one_draws_as_the_model_says_and_a_half_squares_it() -> None:
    plain = drawn(Decoding(temperature=1.0))
    assert [plain[n] for n in range(4)] == pytest.approx([0.5, 0.3, 0.15, 0.05], abs=0.03)
    squares = [0.25, 0.09, 0.0225, 0.0025]
    bold = drawn(Decoding(temperature=0.5))
    assert [bold.get(n, 0.0) for n in range(4)] == pytest.approx([s / sum(squares) for s in squares], abs=0.03)


def test_top_k_and_top_p_leave_the_fewest_tokens_that_satisfy_them() -> None:
    top_k = drawn(Decoding(temperature=1.0, top_k=2))
    assert set(top_k) == {0, 1} and top_k[0] == pytest.approx(0.625, abs=0.03)
    assert set(drawn(Decoding(temperature=1.0, top_p=0.75))) == {0, 1}
    assert set(drawn(Decoding(temperature=1.0, top_p=0.9))) == {0, 1, 2}
    assert set(drawn(Decoding(temperature=1.0, top_p=0.01))) == {0}
    assert set(drawn(Decoding(temperature=1.0, top_k=100))) == {0, 1, 2, 3}


@pytest.mark.parametrize(
    "settings, message",
    [
        ({"num_tokens": 0}, "num_tokens is 0"),
        ({"temperature": -1.0}, r"temperature is -1\.0"),
        ({"temperature": float("nan")}, "temperature is nan"),
        ({"top_k": -1}, "top_k is -1"),
        ({"top_p": 0.0}, r"top_p is 0\.0"),
    ],
)
def test_settings_out_of_range_are_refused(settings: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        Decoding(**settings)


def test_a_seed_repeats_a_text_and_another_changes_it(gpt2: Loaded) -> None:
    texts = ["".join(gpt2.generate("ba", temperature=1.0, seed=seed, num_tokens=30)) for seed in (1, 1, 2)]
    assert texts[0] == texts[1] != texts[2]


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_the_cache_changes_no_token_even_when_the_context_slides(gpt2: Loaded, temperature: float) -> None:
    sampling = Decoding(num_tokens=100, temperature=temperature, seed=3)
    with_cache, without = (list(generate_ids(gpt2.model, [7, 8], sampling, cache=cache)) for cache in (True, False))
    assert with_cache == without
    assert len(with_cache) == 100 > gpt2.model.backbone.settings.max_length


def test_when_the_table_is_full_the_later_half_of_the_context_stays(gpt2: Loaded) -> None:
    room = gpt2.model.backbone.settings.max_length
    prompt = [6 + n % 50 for n in range(room)]
    (first, second) = generate_ids(gpt2.model, prompt, Decoding(num_tokens=2))
    assert first == int(gpt2.logits(prompt)[0, -1].argmax())
    assert second == int(gpt2.logits([*prompt, first][-room // 2 :])[0, -1].argmax())
    (longer,) = generate_ids(gpt2.model, [9, 9, 9, *prompt], Decoding(num_tokens=1))
    assert longer == first


def test_it_ends_at_the_end_of_the_text_and_never_writes_rows_beyond_the_tokenizer(gpt2: Loaded) -> None:
    symbols = Symbols(limit=6, ends=(5,))
    free = list(generate_ids(gpt2.model, [3], Decoding(num_tokens=200, temperature=5.0, seed=0), symbols))
    assert 0 < len(free) < 200 and set(free) <= set(range(5))


def test_what_cannot_be_continued_is_refused_at_the_call(gpt2: Loaded, tmp_path: Path) -> None:
    bert = elision.load(checkpoint(tmp_path / "bert", tiny.recipe("bert-tiny")))
    with pytest.raises(InputError, match="this one is bidirectional"):
        bert.generate("ba")
    with pytest.raises(InputError, match="the prompt is empty"):
        generate_ids(gpt2.model, [], Decoding())
    with pytest.raises(InputError, match="the prompt is empty"):
        generate_batch_ids(gpt2.model, [[7], []], Decoding())
    with pytest.raises(InputError, match="the prompt holds the id 4000"):
        generate_ids(gpt2.model, [4000], Decoding())


TEXT = "naïve 한국어 🙂👍🏽 日本 — “quoted”, end. " * 3


def trained(spec: WordPiece | ByteLevelBPE | Unigram) -> Tokenizer:
    return spec.train([TEXT, "plain words and more plain words"] * 4)


@pytest.mark.parametrize(
    "spec", [ByteLevelBPE(vocab_size=262), WordPiece(vocab_size=120, lowercase=False), Unigram(vocab_size=90)]
)
@pytest.mark.parametrize("split", [0, 3, 9])
def test_streamed_pieces_join_to_the_decoded_text(spec: WordPiece | ByteLevelBPE | Unigram, split: int) -> None:
    tokenizer = trained(spec)
    ids = tokenizer.encode(TEXT)
    pieces = list(stream_text(tokenizer, ids[:split], ids[split:]))
    whole, prompt = tokenizer.decode(ids), tokenizer.decode(ids[:split])
    shown = prompt[:-1] if prompt.endswith("\ufffd") else prompt
    assert shown + "".join(pieces) == whole
    assert len(pieces) > 10 and all(pieces)
    assert not any("\ufffd" in piece for piece in pieces)


def test_bytes_that_are_no_character_are_shown_once_they_cannot_become_one() -> None:
    tokenizer = trained(ByteLevelBPE(vocab_size=262))
    lead = tokenizer.encode("한")[0]
    ids = [lead, lead, *tokenizer.encode("ok 한"), lead]
    pieces = list(stream_text(tokenizer, [], ids))
    assert "".join(pieces) == tokenizer.decode(ids) == "\ufffd\ufffdok 한\ufffd"
    assert pieces[-1] == "\ufffd"
