"""The models: from a text and a picture to scores of values, and their folders.

members     text, image and joint member: towers with one linear head over all groups
fusion      the members' opinions become one probability for each value
tagger      members and fusion over a micro-batch; how a tagger's folder holds them
pictures    encoded pictures become equally sized tensors; the limit of their size
towers/     text and image encoders
version/    the folder of a model version: format, golden batch, loading, deriving, ONNX, hub
extraction/ spans of a title that name a product or a brand
generation/ tags written by a small language model
"""
