"""The fused text/image tagger: features, members, fusion, training, evaluation, the model-version format."""
