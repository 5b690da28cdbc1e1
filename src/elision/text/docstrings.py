"""The documentation inside the Python packages of this machine, found and cleaned up.

Docstrings are read from source files with `ast`; nothing is imported or run.
"""

import ast
import concurrent.futures
import gc
import inspect
import os
import re
import sysconfig
import warnings
from collections.abc import Iterator
from pathlib import Path

_BLOCK = 64
_MIN_CHARACTERS = 40
_SKIPPED = frozenset(("tests", "test", "testing", "_vendor", "vendored", "idlelib", "lib2to3", "site-packages"))
# Tools of this project's development, so that a developer and a user get much the same corpus.
_TOOLS = frozenset(
    ("transformers", "_pytest", "pytest", "pip", "setuptools", "wheel", "torchgen", "encodings", "rensa")
)
_DOCTEST = re.compile(r"^[ \t]*>>>.*(?:\n(?![ \t]*$).+)*\n?", re.MULTILINE)
_RULER = re.compile(r"^[ \t]*[-=~^*+#]{3,}[ \t]*$\n?", re.MULTILINE)
_WRAPPED = re.compile(r"(?<=[^\s:.?!|])\n(?P<indent>[ \t]*)(?=[a-z(])")
_WRAPPED_STOP = re.compile(r"^(?P<head>[ \t]*)(?P<line>\S.{49,}\S)\n(?P=head)(?=[A-Z]\w*[ ,])", re.MULTILINE)


def source_files() -> list[tuple[str, Path]]:
    """Return (module, file) for every source file of the standard library and the installed packages, sorted.

    Left out are tests and what packages bundle of others (much source, few docstrings), and development tools.
    """
    paths = sysconfig.get_paths()
    found: dict[str, Path] = {}
    for root in dict.fromkeys((paths["stdlib"], paths["purelib"], paths["platlib"])):
        for folder, folders, files in os.walk(root):
            skipped = _SKIPPED | (_TOOLS if folder == root else frozenset())
            folders[:] = sorted(name for name in folders if name not in skipped and not name.startswith((".", "__")))
            for file in files:
                if file.endswith(".py"):
                    path = Path(folder, file)
                    module = ".".join(path.relative_to(root).with_suffix("").parts).removesuffix(".__init__")
                    found.setdefault(module, path)
    return sorted(found.items())


def parse(files: list[tuple[str, Path]]) -> Iterator[tuple[str, Path, list[tuple[int, str, str]], int]]:
    """Yield (module, file, [(line, name, text), ...], size) for each of `files`, in order, on all cores."""
    blocks = [files[i : i + _BLOCK] for i in range(0, len(files), _BLOCK)]
    if (os.cpu_count() or 1) == 1 or len(blocks) < 4:
        for block in blocks:
            yield from _parse_block(block)
        return
    with concurrent.futures.ProcessPoolExecutor() as pool:
        for parsed in pool.map(_parse_block, blocks):
            yield from parsed


def _parse_block(block: list[tuple[str, Path]]) -> list[tuple[str, Path, list[tuple[int, str, str]], int]]:
    # A syntax tree is millions of objects that the garbage collector would visit in vain: a sixth of the time.
    was_on = gc.isenabled()
    gc.disable()
    try:
        return [(module, file, *_parse_file(module, file)) for module, file in block]
    finally:
        if was_on:
            gc.enable()


def _parse_file(module: str, file: Path) -> tuple[list[tuple[int, str, str]], int]:
    """Return (line, name, text) of each document in a source file, and the size of the file."""
    data = file.read_bytes()
    if b'"""' not in data and b"'''" not in data:
        return [], len(data)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            tree = ast.parse(data)
    except (SyntaxError, ValueError):
        # Templates and files for other versions of Python lie among the sources; they hold no documentation for us.
        return [], len(data)
    if module == "pydoc_data.topics":
        return _topics(tree), len(data)
    documents = []
    head = prose(ast.get_docstring(tree, clean=False))
    if head:
        documents.append((1, "", head))
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            text = "\n\n".join(filter(None, (prose(doc) for doc in _docstrings(node))))
            if len(text) >= _MIN_CHARACTERS:
                documents.append((node.lineno, node.name, text))
    return documents, len(data)


def _topics(tree: ast.Module) -> list[tuple[int, str, str]]:
    for node in tree.body:
        if isinstance(node, ast.Assign | ast.AnnAssign) and isinstance(node.value, ast.Dict):
            topics = ast.literal_eval(node.value)
            return [(node.lineno, name, prose(text)) for name, text in sorted(topics.items())]
    return []


def _docstrings(node: ast.AST) -> Iterator[str | None]:
    yield ast.get_docstring(node, clean=False)
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            yield from _docstrings(child)


def prose(docstring: str | None) -> str:
    """Return the readable text of a docstring: dedented, without doctests and rulers, wrapped lines joined."""
    if not docstring:
        return ""
    text = inspect.cleandoc(docstring)
    text = _RULER.sub("", _DOCTEST.sub("", text))
    # The order matters: a line that ends a sentence and one that does not are both parts of one paragraph.
    text = _WRAPPED_STOP.sub(r"\g<head>\g<line> ", _WRAPPED.sub(" ", text))
    return re.sub(r"\n{3,}", "\n\n", text).strip()
