import pytest

from elision.text.sentences import split_sentences
from elision.text.tokenizer import ByteLevelBPE, WordPiece

CASES = [
    ("en", "It costs 3.5 million. Mr. Kim agreed.", ["It costs 3.5 million.", "Mr. Kim agreed."]),
    ("en", "Use a list, e.g. apples or plums. Then stop!", ["Use a list, e.g. apples or plums.", "Then stop!"]),
    ("en", '"Why?" he asked. "Because."', ['"Why?" he asked.', '"Because."']),
    (
        "en",
        "J. R. Smith of the U.S. Army left in 1990. He ran.",
        ["J. R. Smith of the U.S. Army left in 1990.", "He ran."],
    ),
    ("en", "one line\nanother line", ["one line", "another line"]),
    ("de", "Am 3. Oktober war es kalt. Dann kam Regen.", ["Am 3. Oktober war es kalt.", "Dann kam Regen."]),
    (
        "ko",
        "나는 학교에 갔다. 날씨가 좋았어요! 버전 3.5를 썼다.",
        ["나는 학교에 갔다.", "날씨가 좋았어요!", "버전 3.5를 썼다."],
    ),
    ("ko", "재미있었다.다시 볼게요.", ["재미있었다.", "다시 볼게요."]),
    ("ko", "2024. 3. 5. 발표했다. 끝.", ["2024. 3. 5. 발표했다.", "끝."]),
    (None, "발표일은 24. 12. 31. (화)이다. 끝.", ["발표일은 24. 12. 31. (화)이다.", "끝."]),
    (None, "2024. 3. 5 갔다. 3. 6. 왔다. 2025. 1. 본다.", ["2024. 3. 5 갔다.", "3. 6. 왔다.", "2025. 1. 본다."]),
    (None, "2024. 3. 5. ~ 2024. 4. 10. 쉬었다.", ["2024. 3. 5. ~ 2024. 4. 10. 쉬었다."]),
    (None, "2024.3.5. 갔다. 왔다.", ["2024.3.5. 갔다.", "왔다."]),
    (None, "시행일: 2024. 3. 5.\n다음 조항", ["시행일: 2024. 3. 5.", "다음 조항"]),
    ("zh", "今天天气很好。我们去公园吧！你去吗？", ["今天天气很好。", "我们去公园吧！", "你去吗？"]),
    ("zh", "他说：“走吧。”然后走了。", ["他说：“走吧。”", "然后走了。"]),
    ("ja", "今日は晴れです。「行こう。」と言った。", ["今日は晴れです。「行こう。」", "と言った。"]),
    ("hi", "यह एक वाक्य है। यह दूसरा है।", ["यह एक वाक्य है।", "यह दूसरा है।"]),
    ("ar", "كيف حالك؟ أنا بخير.", ["كيف حالك؟", "أنا بخير."]),
]


@pytest.mark.parametrize(("language", "text", "expected"), CASES)
def test_sentences_end_where_a_reader_ends_them(language, text, expected):
    assert [piece.strip() for piece in split_sentences(text, language)] == expected


def test_english_ordinals_do_not_hide_a_sentence_end():
    assert len(split_sentences("It was 1990. He left.", "en")) == 2


@pytest.mark.parametrize(
    ("text", "first"),
    [
        ("It was 1999. 5 people came.", "It was 1999."),
        ("It was 1999. 3.5 million came.", "It was 1999."),
        ("That was in 1990. 2. The second point.", "That was in 1990."),
        ("We met on 2024. 3. 5. Then we left.", "We met on 2024. 3. 5."),
        ("버전은 1999. 13. 다음", "버전은 1999."),
    ],
)
def test_a_number_that_begins_a_sentence_is_not_taken_for_a_date(text, first):
    assert split_sentences(text)[0] == first


TEXTS = [
    "First.  Second sentence!\n\n  Third one?\tFourth. ",
    '  Leading space. And "quotes." (Brackets too.) Don\'t stop… Really?! Yes.',
    "나는 갔다. 재미있었다.다시 봤다!  그래서 좋았다.\n끝.",
    "今天好。明天更好！“走吧。”“好。”他说。",
    "यह है। वह है।और यह भी।",
    "Mr. X said 3.5 is ok. e.g. this. U.S. law.\n1. item\n2. item",
    "a \n b\n\n\nc.   D.\r\nE.",
]


@pytest.mark.parametrize("text", TEXTS)
def test_joined_sentences_give_the_text_back(text):
    assert "".join(split_sentences(text)) == text


@pytest.mark.parametrize("spec", [ByteLevelBPE(600), WordPiece(600)])
def test_ids_of_sentences_put_together_are_the_ids_of_the_text(spec):
    # Repeated, so that merges over spaces, stops and quotation marks are learned and a bad cut would show.
    tokenizer = spec.train(TEXTS * 5)
    for text in TEXTS:
        pieces = split_sentences(text)
        assert len(pieces) > 1
        assert [i for piece in tokenizer.encode_batch(pieces) for i in piece.tolist()] == tokenizer.encode(text)


def test_white_space_and_nothing_have_no_sentences_of_their_own():
    assert split_sentences("") == []
    assert split_sentences(" \n ") == [" \n "]
