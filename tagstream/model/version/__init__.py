"""model/version."""
