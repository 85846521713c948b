"""Package data: the art pack, shipped models and judges."""
