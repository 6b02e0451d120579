"""The ports' real parts. Their twins in memory, with faults as data, are in tests/support.

kafka/     the topics, in and out
redis/     the store of tags
ray/       replicas, metrics and a Ray of this machine
local/     a broker and a store of this machine
champion   the model version that answers; it follows the registry
registry   model versions in a folder or behind a URI, and which one is champion
images     pictures from URLs and files, within a deadline
clock      the real time
"""
