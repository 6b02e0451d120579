"""What everything is made of: contracts, decisions, errors. Pure: no clock, no network, no framework.

events     ProductEvent, ProductTags, Tag, Event: the contracts of the topics
ports      what the worker needs from the outside, as protocols, and what passes through them
records    a record on its way to the event topic, before it has a partition
taxonomy   groups, values, parents, thresholds, names
hierarchy  scores and choices that never contradict the tree of values
decide     scores + taxonomy + what the event says → tags
rules      the typed rule file; patterns that can be too slow are refused
language   which language a text is in, and a name in the language that a reader wants
errors     the error tree; the class says what happens next
metrics    every metric, in one list
"""
