"""elision: pretrain every classic family of language models from raw text, each with its own objective."""

__version__ = "0.1.0"
