"""Judges: what says whether a picture shows what it should."""
