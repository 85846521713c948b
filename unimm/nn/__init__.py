"""Layers of the trunk: attention, rotary positions, cache, transformer."""
