"""Extraction: spans of a title that name its product and its brand.

extractor   from titles to spans with their values; how an extractor's folder holds it
network     encoders of characters, learned from scratch
pretrained  a Hugging Face encoder under the characters
lexicon     terms that training titles label, as features
bio         classes of characters, the chain over them, and spans
"""
