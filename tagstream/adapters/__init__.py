"""One outside system a file, each behind a port of `tagstream.core.ports`."""
