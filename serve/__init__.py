"""The deployments: thin shells over `tagstream`."""
