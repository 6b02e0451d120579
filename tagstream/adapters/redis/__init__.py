"""adapters/redis."""
