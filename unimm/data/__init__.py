"""Documents to train on: the procedural world, sources and the loader."""
