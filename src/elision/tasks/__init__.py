"""Downstream tasks: fine-tune, predict, score."""
