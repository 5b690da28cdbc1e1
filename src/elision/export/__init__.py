"""Hugging Face layouts: one two-way key map for each class family serves import and export."""
