"""Rebuilds the embedded world: language models, scored samples of the reference, and their checks."""
