"""How fast and how small, beside the tools that people use today. See bench/README.md."""
