"""Seeing what a recipe does to a text, in the terminal and as a page."""
