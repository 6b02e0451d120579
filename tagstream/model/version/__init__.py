"""The folder of a model version, the same for taggers, generators and extractors.

format  the files, the manifest, how they are written and checked
golden  inputs that a loaded version must answer as it did when it was saved
load    any version from its folder
derive  a child version with the same weights and another taxonomy
onnx    a tagger as one ONNX graph
hub     versions on a Hugging Face hub
"""
