"""A corpus that is already there: the documentation inside the Python packages of this machine, and a task made of it.

It is real English technical prose, over 10 MB with the dependencies of torch alone.
"""

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any

from elision.text.docstrings import parse, source_files
from elision.text.library_task import LibraryTask, library_task
from elision.text.readers import Document

__all__ = ["LibraryTask", "PydocsSource", "library_task"]


@dataclasses.dataclass(frozen=True)
class PydocsSource:
    """The docstrings of the standard library and the installed packages, and the topics of Python's own help.

    One document is one module's introduction, one function, or one class with its methods. Left out are tests, bundled
    copies of other packages, and development tools such as pip and pytest. The order is that of the sorted paths, so
    the same environment gives the same corpus.
    """

    name: str = "pydocs"

    @property
    def num_bytes(self) -> int:
        """Size of the source files that are read."""
        return sum(file.stat().st_size for _, file in source_files())

    def identity(self) -> list[Any]:
        """Return the number and the size of the source files."""
        return [self.name, len(source_files()), self.num_bytes]

    def documents(self, progress: Callable[[int], None]) -> Iterator[Document]:
        """Yield the documents; parsing runs on all cores."""
        read = 0
        for module, file, texts, size in parse(source_files()):
            read += size
            progress(read)
            for line, name, text in texts:
                yield Document(text, "en", f"{module}.{name}" if name else module, f"{file}:{line}")
