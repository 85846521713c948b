"""Storyworld: a procedural world of real emoji art with exact ground truth."""
