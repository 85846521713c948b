"""Probes: what the features of a generative model know of pictures."""
