"""Extraction: spans of a title that name its product and its brand. `extractor.Extractor` is the way in."""
