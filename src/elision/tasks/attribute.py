"""Source attribution: which kind of text a text most likely is, by how well each control code predicts it (CTRL)."""

import dataclasses
import math
from collections.abc import Mapping, Sequence

import torch

from elision.errors import InputError, nearest
from elision.loaded import Loaded
from elision.text.codes import code_id, known_codes


@dataclasses.dataclass(frozen=True)
class Attribution:
    """What a code says of a text: log p(text | code) in nats, its perplexity, and p(code | text) among the codes asked for."""

    code: str
    log_likelihood: float
    perplexity: float
    probability: float


def attribute(
    model: Loaded, text: str, codes: Sequence[str] = (), prior: Mapping[str, float] | None = None
) -> list[Attribution]:
    """Return the codes, all that the model knows or those given, the likeliest source of `text` first.

    p(code | text) ∝ p(text | code) p(code) (Keskar et al. 2019, section 5). Of a text that is longer than the model reads,
    its beginning counts. prior: how frequent each code is, in any unit; None = all alike.

    Raises: InputError when there is no code or no text, a code is no single token, or the prior lacks one.
    """
    codes = list(codes) or known_codes(model.tokenizer)
    if not codes:
        raise InputError(
            f"the tokenizer of {model.path} has no symbols <|NAME|> for control codes: train a recipe like ctrl-tiny on a "
            f"corpus with codes, or name the codes (words of one token)"
        )
    if prior is not None:
        for code in codes:
            if not prior.get(code, 0) > 0:
                raise InputError(f"prior gives {code!r} no positive number.{nearest(code, list(prior))}")
    longest = model.recipe.backbone.max_length
    ids = model.tokenizer.encode(text)[:longest]
    if not ids:
        raise InputError("the text to attribute is empty")
    likelihoods = []
    for code in codes:
        scores_TV = model.logits([[code_id(model.tokenizer, code), *ids[:-1]]])[0].double()
        found = torch.log_softmax(scores_TV, -1).gather(1, torch.tensor(ids, device=scores_TV.device)[:, None])
        likelihoods.append(float(found.sum()))
    joint = [
        likelihood + (math.log(prior[code]) if prior is not None else 0.0)
        for code, likelihood in zip(codes, likelihoods, strict=True)
    ]
    shares = torch.softmax(torch.tensor(joint, dtype=torch.float64), 0).tolist()
    found = [
        Attribution(code, likelihood, math.exp(-likelihood / len(ids)), share)
        for code, likelihood, share in zip(codes, likelihoods, shares, strict=True)
    ]
    return sorted(found, key=lambda one: -one.probability)
