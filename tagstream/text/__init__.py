"""What models read of a text: its fields, plain forms, n-grams and names. numpy only.

fields    which fields are read, in which order, and how far
plain     one form for all spellings: NFKC, case, endings, Han
ngrams    hashed n-grams of a micro-batch
mentions  which values of a taxonomy a text names
masking   a text without the words that name labels
"""
