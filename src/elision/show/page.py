"""An explanation as one self-contained page: no other file, no network, and readable without scripts or colour."""

import dataclasses
import importlib.resources
import itertools
import json
from html import escape

import numpy as np

from elision.show.explain import Explanation, Side
from elision.show.parts import Part, field_docs
from elision.show.terminal import TITLES, segment_name
from elision.show.token import Fate, Token

NUM_COLOURS = 6
HINT = "Point at a token, or at the picture of who sees whom: what it sees stays bright. Tab and arrow keys work too."
# A picture of few tokens names its rows.
MOST_LABELLED = 64
LABEL = 12


def page(shown: Explanation) -> str:
    """Return the page as HTML text."""
    files = importlib.resources.files("elision.show")
    style, script = (files.joinpath(name).read_text(encoding="utf-8") for name in ("page.css", "page.js"))
    rows = json.dumps([_runs(row) for row in shown.visible], separators=(",", ":"))
    title = escape(shown.recipe)
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>{title}: what it does to a text</title>
<style>
{style}</style>
</head>
<body>
<header>
<h1>{title}</h1>
<p class="idea">{escape(shown.idea)}</p>
<p class="paper">{escape(shown.paper)}</p>
</header>
<main>
<section aria-labelledby="text-heading">
<h2 id="text-heading">The text, as the model meets it</h2>
{_sentences(shown)}
{_shares(shown)}
{"".join(_ribbon(shown, side) for side in shown.sides)}
{_key(shown)}
<p class="status">{HINT}</p>
</section>
<section aria-labelledby="visible-heading">
<h2 id="visible-heading">Who sees whom</h2>
<div class="visible">
<figure>
{picture(shown)}
<figcaption>{_caption(shown)}</figcaption>
</figure>
<div>
<p>{escape(shown.sentences[-1])}</p>
<p class="status" aria-live="polite">{HINT}</p>
</div>
</div>
</section>
<section aria-labelledby="parts-heading">
<h2 id="parts-heading">What the recipe is made of</h2>
<div class="parts">
{"".join(map(_part, shown.parts))}</div>
</section>
</main>
<footer>
{"".join(f"<p>{escape(note)}</p>" for note in shown.notes)}
<p>Made by <code>elision show</code> with the segmenter, the noise and the visibility that training uses.</p>
</footer>
<script type="application/json" id="rows">{rows}</script>
<script>
{script}</script>
</body>
</html>
"""


def picture(shown: Explanation) -> str:
    """Return who sees whom as SVG, coloured by document; columns that show a mask or a random token are striped."""
    size = len(shown.tokens)
    shapes = []
    for first, last, runs in _bands(shown.visible):
        for begin, end in runs:
            for left, right, document in _documents(shown.tokens, begin, end):
                box = f'x="{left}" y="{first}" width="{right - left}" height="{last - first}"'
                shapes.append(f'<rect class="seen colour-{(document - 1) % NUM_COLOURS}" {box}/>')
    for column, token in enumerate(shown.tokens):
        if token.fate in (Fate.MASKED, Fate.REPLACED):
            for begin, end in _runs(shown.visible[:, column]):
                box = f'x="{column}" y="{begin}" width="1" height="{end - begin}"'
                shapes.append(f'<rect class="stripe-{token.fate.value}" {box}/>')
    names, margin = "", 0.0
    if size <= MOST_LABELLED:
        cut = [piece if len(piece) <= LABEL else f"{piece[: LABEL - 1]}…" for piece in (t.piece for t in shown.tokens)]
        margin = 0.42 * max(map(len, cut)) + 0.6
        names = "".join(f'<text x="-0.3" y="{row + 0.74}">{escape(name)}</text>' for row, name in enumerate(cut))
    box, width = f"{-margin:.2f} 0 {size + margin:.2f} {size}", f"max-width:{2.2 * (size + margin):.0f}rem"
    return (
        f'<svg id="picture" viewBox="{box}" style="{width}" role="img" aria-label="{escape(shown.sentences[-1])}" '
        f'shape-rendering="crispEdges">{names}{"".join(shapes)}'
        f"{_lines(shown)}"
        f'<rect id="row" class="cross" width="{size}" height="1" hidden=""/>'
        f'<rect id="column" class="cross" width="1" height="{size}" hidden=""/></svg>'
    )


def _lines(shown: Explanation) -> str:
    """Return the lines between what is read and what is written."""
    size = len(shown.tokens)
    return "".join(f'<path class="edge" d="M0 {side.begin}H{size}M{side.begin} 0V{size}"/>' for side in shown.sides[1:])


def _ribbon(shown: Explanation, side: Side) -> str:
    """Return the places of one row, under its name where there are two."""
    heading = f"<h3>{TITLES[side.name]}</h3>\n" if side.name else ""
    places = "".join(_token(shown, place, side) for place in range(side.begin, side.end))
    return f'{heading}<ol class="ribbon {shown.restores}">\n{places}</ol>'


def _sentences(shown: Explanation) -> str:
    labels = "".join(f'<p class="label">{escape(label)}</p>' for label in shown.labels)
    lead = "".join(f'<p class="lead">{escape(sentence)}</p>' for sentence in shown.sentences[:-1])
    return f"{lead}{labels}"


def _shares(shown: Explanation) -> str:
    """Return a bar of how many tokens met which fate; nothing where none was changed or asked for in its place."""
    counts = [(fate, shown.count(fate)) for fate in (Fate.MASKED, Fate.REPLACED, Fate.KEPT, Fate.UNTOUCHED)]
    if counts[-1][1] == len(shown.read):
        return ""
    bars = "".join(f'<i class="{fate.value}" style="flex-grow:{count}"></i>' for fate, count in counts if count)
    names = "".join(
        f'<li><b class="swatch {fate.value}">{fate.value}</b> {count} <span>{fate.meaning}</span></li>'
        for fate, count in counts
        if count
    )
    return f'<div class="shares" aria-hidden="true">{bars}</div><ul class="fates">{names}</ul>'


def _caption(shown: Explanation) -> str:
    changed = [fate.value for fate in (Fate.MASKED, Fate.REPLACED) if shown.count(fate)]
    stripes = f" Stripes: what is seen there is a {' or a '.join(changed)} token." if changed else ""
    sides = " Above and left of the lines what is read, below and right of them what is written."
    return (
        f"A row for each token that looks, a column for each that is seen.{stripes}{sides if shown.sides[1:] else ''}"
    )


def _token(shown: Explanation, place: int, side: Side) -> str:
    """Return one place of the ribbon: position and fate above, what is read, what is restored, segment and document."""
    token, previous = shown.tokens[place], shown.tokens[place - 1] if place > side.begin else None
    fresh = previous is None or previous.example != token.example
    looks = ["token", token.fate.value] + ["special"] * token.special + ["fresh"] * (fresh and previous is not None)
    fate = "" if token.fate is Fate.UNTOUCHED else f"<em>{token.fate.value}</em>"
    if token.unseen:
        looks.append("hidden")
        fate += "<em>hidden</em>"
    stood = ""
    if token.dropped or token.original not in ((token.piece,), (token.target,)):
        gone = " ".join([*(f"({piece})" for piece in token.dropped), *token.original])
        stood = f'<span class="stood">{escape(gone) or "∅"}</span>'
    if token.sampled is not None:
        look = Fate.KEPT if token.sampled == token.target else Fate.REPLACED
        stood += f'<span class="sampled {look.value}">{escape(token.sampled)}</span>'
    said = ""
    if token.side != "reads":
        looks_like = "target" + " asked" * (token.target is not None) + " gone" * token.left_out
        target = "&nbsp;" if token.target is None else escape(token.target)
        said = f'<span class="{looks_like}">{target}</span>'
    if token.predicted is not None:
        look = Fate.KEPT if token.predicted == token.target else Fate.REPLACED
        said += f'<span class="predicted {look.value}">{escape(token.predicted)}</span>'
    bands = ""
    if token.prefix is not None:
        begins = fresh or previous.prefix != token.prefix
        bands += _band(int(not token.prefix), ("read" if token.prefix else "written") if begins else "")
    if token.segment is not None:
        begins = fresh or previous.segment != token.segment
        bands += _band(token.segment, segment_name(token.segment) if begins else "")
    if shown.num_documents > 1:
        begins = previous is None or previous.document != token.document
        bands += _band(token.document - 1, f"document {token.document}" if begins else "")
    return (
        f'<li class="{" ".join(looks)}" tabindex="0"><span class="above">{token.position}{fate}</span>{stood}'
        f'<span class="piece">{escape(token.piece)}</span>{said}{bands}</li>\n'
    )


def _band(number: int, name: str) -> str:
    return f'<span class="band colour-{number % NUM_COLOURS}">{f"<b>{name}</b>" if name else ""}</span>'


def _key(shown: Explanation) -> str:
    below = {
        "itself": "the token to be restored",
        "next": "the next token, to be predicted",
        "other": "what it must say",
    }
    entries = [f"above a token its position, below it, with an arrow, {below[shown.restores]}"]
    if shown.has_samples:
        entries.append("between them what a generator fills in: green where it is the very token that stood there")
    if shown.has_predictions:
        entries.append("under that what the model would say, green where it is right")
    if any(token.left_out for token in shown.tokens):
        entries.append("underlined is what cannot be read anywhere")
    if any(token.unseen for token in shown.tokens):
        entries.append("hidden places are not seen by what is written")
    if shown.has_segments:
        entries.append("the letter under the line names its segment")
    return f'<p class="key">How to read it: {"; ".join(entries)}.</p>'


def _part(part: Part) -> str:
    docs = field_docs(part.kind)
    settings = "".join(
        f"<dt>{escape(name)} = {escape(_value(value))}</dt><dd>{escape(docs.get(name, ''))}</dd>"
        for name, value in part.settings.items()
    )
    details = f"<details><summary>{_count(part.settings)}</summary><dl>{settings}</dl></details>"
    return (
        f'<article><h3>{escape(part.question)}?</h3><p class="name">{escape(part.name)}</p>'
        f"<p>{escape(part.summary)}</p>{details if settings else ''}</article>\n"
    )


def _count(settings: dict[str, object]) -> str:
    return "1 setting" if len(settings) == 1 else f"{len(settings)} settings"


def _value(value: object) -> str:
    if not dataclasses.is_dataclass(value):
        return str(value)
    inner = ", ".join(f"{field.name}={_value(getattr(value, field.name))}" for field in dataclasses.fields(value))
    return f"{type(value).__name__}({inner})"


def _runs(row: np.ndarray) -> list[tuple[int, int]]:
    """Return begin and end of each stretch of True."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], row, [False]]).astype(np.int8)))
    return [(int(begin), int(end)) for begin, end in zip(edges[::2], edges[1::2])]


def _bands(visible: np.ndarray) -> list[tuple[int, int, list[tuple[int, int]]]]:
    """Return stretches of equal rows: first row, end row, and the runs that they share."""
    changes = np.flatnonzero((visible[1:] != visible[:-1]).any(1)) + 1
    edges = [0, *changes.tolist(), len(visible)]
    return [(first, last, _runs(visible[first])) for first, last in itertools.pairwise(edges)]


def _documents(tokens: tuple[Token, ...], begin: int, end: int) -> list[tuple[int, int, int]]:
    """Cut places `begin` to `end` where the document changes: begin, end, document."""
    found = [[begin, end, tokens[begin].document]]
    for place in range(begin + 1, end):
        if tokens[place].document != found[-1][2]:
            found[-1][1] = place
            found.append([place, end, tokens[place].document])
    return [tuple(piece) for piece in found]
