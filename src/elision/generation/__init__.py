"""Writing: how the next token is chosen, searched for, and turned into text."""
