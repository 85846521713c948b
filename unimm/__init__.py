"""unimm: unified multimodal generation on one trunk."""
