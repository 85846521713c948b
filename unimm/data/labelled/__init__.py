"""Pictures with truth that probes are trained and scored on: classes, depth, regions, points."""
