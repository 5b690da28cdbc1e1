import re

import numpy as np
import pytest

from elision.cli.prepare import choose_tokenizer
from elision.errors import InputError
from elision.text.vocabulary import KINDS_WITH, ROLES, Vocabulary


def test_a_missing_symbol_is_explained_with_the_options_that_give_it():
    nothing = np.zeros(9, dtype=bool)
    vocabulary = Vocabulary(size=9, special=nothing, continues_word=nothing, eos=0)
    assert vocabulary.require("eos") == 0
    with pytest.raises(
        InputError, match=r"no 'cls' token \(it has: eos\).*--tokenizer unigram --layout albert.*cls_token"
    ):
        vocabulary.require("cls")


@pytest.mark.parametrize("role", ROLES)
def test_every_tokenizer_that_the_explanation_names_has_the_symbol(role):
    named = re.findall(r"--tokenizer (\w+)(?: --layout (\w+))?(?: \(or (\w+)\))?", KINDS_WITH[role])
    assert len(named) >= 2
    for kind, *layouts in named:
        for layout in filter(None, layouts) if any(layouts) else [None]:
            assert role in choose_tokenizer(None, kind, layout).roles
