"""Data: the token store, segmenters, noise, batches and their order. One direction: store -> example -> batch."""
