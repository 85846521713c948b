"""Writing and drawing: the engine, single pictures, stories and their pages."""
