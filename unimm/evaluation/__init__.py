"""Evaluation: scores with their ceilings, their chance and their intervals."""
