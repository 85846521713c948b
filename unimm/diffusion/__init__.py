"""Rectified-flow diffusion in pure functions: path, times, solvers, sampling loop, guidance."""
