"""Every training loop, as a function."""
