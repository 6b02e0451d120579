"""Taxonomy files: read, write, edit, made from labelled data, imported."""
