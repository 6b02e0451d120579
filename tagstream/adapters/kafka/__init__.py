"""adapters/kafka."""
