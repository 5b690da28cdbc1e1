"""An explanation in the terminal: the text as stacked rows, and a picture of who sees whom in half-blocks."""

import unicodedata
from collections.abc import Callable, Sequence

import numpy as np
from rich.cells import cell_len, set_cell_size
from rich.console import Console, Group, RenderableType
from rich.padding import Padding
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from elision.show.explain import Explanation, Side
from elision.show.token import Fate, Token

# White or black text on a fixed colour reads the same on dark and light terminals.
CHIPS = {
    Fate.MASKED: "bold white on #7c3aed",
    Fate.REPLACED: "bold black on #f59e0b",
    Fate.KEPT: "bold white on #047857",
    Fate.UNTOUCHED: "",
}
COLOURS = ("cyan", "yellow", "green", "magenta", "blue", "red")
STRIPES = {Fate.MASKED: "#7c3aed", Fate.REPLACED: "#f59e0b"}
STYLES = (*COLOURS, *STRIPES.values())
GUTTER = 10
WIDEST_PIECE = 24
MOST_TOKENS = 192
# A picture of few tokens names its rows; a larger one puts two rows into a line.
MOST_LABELLED = 24
LABEL = 14
LARGEST_PICTURE = 64
TITLES = {"reads": "what is read", "writes": "what is written"}


def print_explanation(shown: Explanation, console: Console, max_tokens: int | None = MOST_TOKENS) -> None:
    """Print it all; of a long example only the first `max_tokens` tokens (None = all)."""
    heading = Text(shown.recipe, "bold")
    console.print()
    console.print(Padding(heading, (0, 1)))
    if shown.idea:
        console.print(Padding(Text(shown.idea, "italic"), (0, 1)))
    console.print()
    for block in rows(shown, console.width - 2, max_tokens):
        console.print(Padding(block, (0, 1)))
        console.print()
    console.print(Padding(beside(picture(shown, console.width - 4), words(shown), console), (0, 1)))
    console.print()
    for note in shown.notes:
        console.print(Padding(Text(note, "dim"), (0, 1)))


def rows(shown: Explanation, width: int, max_tokens: int | None = MOST_TOKENS) -> list[Text]:
    """Return the text as blocks of stacked rows, each block at most `width` cells wide."""
    blocks = []
    for side in shown.sides:
        if side.name:
            blocks.append(Text(TITLES[side.name], "bold underline"))
        blocks += _blocks(shown, side, width, max_tokens)
    return blocks


def _blocks(shown: Explanation, side: Side, width: int, max_tokens: int | None) -> list[Text]:
    """Return one side of the text as blocks of stacked rows."""
    all_tokens = shown.tokens[side.begin : side.end]
    tokens = all_tokens[:max_tokens]
    lines = _lines(shown, all_tokens)
    columns = [[content(i) for _, content in lines] for i in range(len(tokens))]
    widths = [max(cell_len(text) for text, _, _ in column) for column in columns]
    blocks = []
    start = 0
    while start < len(tokens):
        stop, used = start, GUTTER
        while stop < len(tokens) and (stop == start or used + widths[stop] + 1 <= width):
            used += widths[stop] + 1
            stop += 1
        block = Text(no_wrap=True)
        for number, (name, _) in enumerate(lines):
            block.append(f"{name:<{GUTTER}}", "dim")
            for i in range(start, stop):
                text, style, runs_on = columns[i][number]
                block.append(text, style)
                rest = widths[i] - cell_len(text)
                if runs_on is None:
                    block.append(" " * (rest + 1))
                else:
                    block.append("━" * (rest + runs_on) + " " * (not runs_on), style)
            block.append("\n" if number < len(lines) - 1 else "")
        blocks.append(block)
        start = stop
    if left := len(all_tokens) - len(tokens):
        blocks.append(Text(f"... and {left} more tokens (--all prints them, --html FILE shows them)", "dim"))
    return blocks


# Text, style, and for a bar whether it goes on through the gap to the next token (None: no bar).
Cell = tuple[str, str, bool | None]


def _lines(shown: Explanation, tokens: Sequence[Token]) -> list[tuple[str, Callable[[int], Cell]]]:
    """Return the rows that have something to say of these tokens: their name, and the cell of each."""
    in_place, writes = shown.restores == "itself", shown.leaves_out == "sequence"
    tells_apart = writes and 0 < sum(token.left_out for token in tokens) < sum(t.target is not None for t in tokens)

    def plain(text: str, style: str = "") -> Cell:
        return _short(text), style, None

    def stood(i: int) -> Cell:
        gone = "".join(f"({piece}) " for piece in tokens[i].dropped)
        return plain(gone + (" ".join(tokens[i].original) or "∅"), "dim")

    def reads(i: int) -> Cell:
        return plain(tokens[i].piece, _look(tokens[i]))

    def sampled(i: int) -> Cell:
        token = tokens[i]
        if token.sampled is None:
            return plain("·", "dim")
        return plain(token.sampled, CHIPS[Fate.KEPT if token.sampled == token.target else Fate.REPLACED])

    def restores(i: int) -> Cell:
        if tokens[i].target is None:
            return plain("·", "dim")
        if writes:
            return plain(tokens[i].target, "bold green" if tokens[i].left_out or not tells_apart else "green")
        return plain(tokens[i].target, "bold") if in_place else plain("→" + _short(tokens[i].target), "green")

    def predicted(i: int) -> Cell:
        token = tokens[i]
        if token.predicted is None:
            return plain("·", "dim")
        return plain(token.predicted, CHIPS[Fate.KEPT if token.predicted == token.target else Fate.REPLACED])

    def stood_at(i: int) -> Cell:
        return plain("·" if tokens[i].came_from is None else str(tokens[i].came_from), "dim")

    def fate(i: int) -> Cell:
        return plain("" if tokens[i].fate is Fate.UNTOUCHED else tokens[i].fate.value, "dim italic")

    def bar(names: list[str]) -> Callable[[int], Cell]:
        keys = [(name, token.example) for name, token in zip(names, tokens)]

        def cell(i: int) -> Cell:
            begins = i == 0 or keys[i] != keys[i - 1]
            colour = COLOURS[sorted(set(names)).index(names[i]) % len(COLOURS)]
            return (names[i] if begins else "━"), colour, i + 1 < len(keys) and keys[i] == keys[i + 1]

        return cell

    lines: list[tuple[str, Callable[[int], Cell]]] = []
    if any(t.dropped or (t.original != (t.piece,) and t.original != (t.target,)) for t in tokens):
        lines.append(("stood", stood))
    lines.append(("reads", reads))
    if shown.has_samples:
        lines.append(("sampled", sampled))
    if any(token.target is not None for token in tokens):
        name = {"itself": "restores", "next": "next", "other": "says"}[shown.restores]
        lines.append(("writes" if writes else name, restores))
    if any(token.predicted is not None for token in tokens):
        lines.append(("predicts", predicted))
    if any(token.fate is not Fate.UNTOUCHED for token in tokens):
        lines.append(("fate", fate))
    if any(token.unseen for token in tokens):
        lines.append(("hidden", lambda i: plain("×" if tokens[i].unseen else "", "bold red")))
    if any(token.moved for token in tokens):
        lines.append(("stood at", stood_at))
    if any(token.prefix is not None for token in tokens):
        lines.append(("part", bar(["read" if token.prefix else "written" for token in tokens])))
    if shown.has_segments:
        lines.append(("segment", bar([segment_name(token.segment) for token in tokens])))
    if shown.has_order:
        lines.append(
            ("order", lambda i: plain(str(tokens[i].order), "bold" if tokens[i].target is not None else "dim"))
        )
    if shown.has_languages:
        lines.append(("language", bar([str(token.language) for token in tokens])))
    if shown.num_documents > 1:
        lines.append(("document", bar([str(token.document) for token in tokens])))
    lines.append(("position", lambda i: plain(str(tokens[i].position), "dim")))
    return lines


def segment_name(segment: int | None) -> str:
    """Return A, B, C ... for type ids 0, 1, 2 ..."""
    return "" if segment is None else chr(ord("A") + segment)


def words(shown: Explanation) -> RenderableType:
    """Return what happened in words, and what the looks mean."""
    parts: list[RenderableType] = []
    for sentence in (*shown.sentences, *shown.labels):
        parts += [Text(sentence), Text()]
    for fate in (Fate.MASKED, Fate.REPLACED, Fate.KEPT):
        if shown.count(fate):
            parts.append(Text.assemble((f" {fate.value} ", CHIPS[fate]), " ", (fate.meaning, "dim")))
    return Group(*parts)


def picture(shown: Explanation, width: int) -> RenderableType:
    """Return who sees whom, at most `width` cells wide: a row for each place that looks, a column for each seen."""
    size = len(shown.tokens) + len(shown.sides) - 1
    labels = [_short(token.piece, LABEL) for token in shown.tokens]
    room = width - 2
    if size <= MOST_LABELLED and max(map(cell_len, labels)) + 1 + 2 * size <= room:
        drawn = _labelled(shown, labels)
    else:
        drawn = _half_blocks(shown, min(LARGEST_PICTURE, room))
    caption = "rows look, columns are seen"
    widest = max(cell_len(line) for line in drawn.plain.split("\n"))
    return Panel(
        drawn,
        title="who sees whom",
        title_align="left",
        subtitle=caption,
        subtitle_align="left",
        border_style="dim",
        padding=0,
        # Borders, and around the caption a space and a line on either side.
        width=max(widest + 2, len(caption) + 6),
    )


def _labelled(shown: Explanation, labels: list[str]) -> Text:
    gutter = max(map(cell_len, labels)) + 1
    visible, colour = shrink(shown, len(labels))
    edges = {side.begin for side in shown.sides[1:]}
    drawn = Text(no_wrap=True)
    for i, label in enumerate(labels):
        if i in edges:
            drawn.append(" " * gutter + "─" * 2 * i + "┼" + "─" * 2 * (len(labels) - i) + "\n", "dim")
        drawn.append(" " * (gutter - 1 - cell_len(label)))
        drawn.append(label, _look(shown.tokens[i]))
        drawn.append(" ")
        for j in range(len(labels)):
            if j in edges:
                drawn.append("│", "dim")
            drawn.append("██" if visible[i, j] else "· ", STYLES[colour[j]] if visible[i, j] else "dim")
        drawn.append("\n" if i + 1 < len(labels) else "")
    return drawn


def _half_blocks(shown: Explanation, most: int) -> Text:
    visible, colour = shrink(shown, most - len(shown.sides) + 1)
    # A gap between what is read and what is written.
    gaps = np.searchsorted(_edges(shown, most - len(shown.sides) + 1), [side.begin for side in shown.sides[1:]])
    visible = np.insert(np.insert(visible, gaps, False, 0), gaps, False, 1)
    colour = np.insert(colour, gaps, 0)
    size = len(visible)
    visible = np.vstack([visible, np.zeros((size % 2, size), bool)])
    drawn = Text(no_wrap=True)
    for top in range(0, len(visible), 2):
        for column in range(size):
            upper, lower = bool(visible[top, column]), bool(visible[top + 1, column])
            block = {(True, True): "█", (True, False): "▀", (False, True): "▄"}.get((upper, lower), " ")
            drawn.append(block, STYLES[colour[column]])
        drawn.append("\n" if top + 2 < len(visible) else "")
    return drawn


def shrink(shown: Explanation, most: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the picture in at most `most` x `most` cells, and the colour of each column as an index into STYLES.

    A cell of a shrunk picture is visible when at least half of what it stands for is, and of one side alone.
    """
    colours = np.array([(token.document - 1) % len(COLOURS) for token in shown.tokens])
    for number, fate in enumerate(STRIPES):
        colours[[token.fate is fate for token in shown.tokens]] = len(COLOURS) + number
    edges = _edges(shown, most)
    sizes = np.diff(edges)
    share = np.add.reduceat(np.add.reduceat(shown.visible.astype(float), edges[:-1], 0), edges[:-1], 1)
    return share / np.outer(sizes, sizes) >= 0.5, colours[edges[:-1]]


def _edges(shown: Explanation, most: int) -> np.ndarray:
    """Return where the cells of a picture of at most `most` begin, and the end: each side has cells of its own."""
    length = len(shown.tokens)
    edges = np.linspace(0, length, min(length, most) + 1).astype(int)
    for side in shown.sides[1:]:
        edges[np.abs(edges - side.begin).argmin()] = side.begin
    return np.unique(edges)


def beside(left: RenderableType, right: RenderableType, console: Console) -> RenderableType:
    """Lay two things side by side where there is room, else one under the other."""
    taken = console.measure(left).maximum
    if console.width - taken < 32:
        return Group(left, Text(), right)
    grid = Table.grid(padding=(0, 3))
    grid.add_column(min_width=taken, no_wrap=True)
    grid.add_column()
    grid.add_row(left, Padding(right, (1, 0, 0, 0)))
    return grid


def _look(token: Token) -> str:
    return CHIPS[token.fate] or ("dim cyan" if token.special else "")


def _short(text: str, widest: int = WIDEST_PIECE) -> str:
    text = "".join(character if character.isprintable() else "�" for character in text)
    if text and unicodedata.category(text[0])[0] == "M":
        # A vowel sign on its own needs something to sit on.
        text = "◌" + text
    return text if cell_len(text) <= widest else set_cell_size(text, widest - 1) + "…"
