"""adapters/ray."""
