"""Generation: the set of a title's tags, written token by token by a small causal language model.

generator  from titles to tags; how a generator's folder holds it
network    the language model, from scratch or pretrained
pieces     texts and values as tokens
grammar    which token may come next
decode     greedy and beam search
"""
