"""Where product events come from when no producer is there: drawn in code, a data folder, a file."""
