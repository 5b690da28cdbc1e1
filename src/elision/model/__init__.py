"""Models: who sees what while restoring it, and how position enters."""
