"""The fused text/image tagger: features, halves, fusion, training, evaluation, the model-version format."""
