"""Writing the set of a title's tags, token by token, with a small causal language model."""
