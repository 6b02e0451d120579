"""The `tagstream` command.

main          the commands on the stream
show          how every command prints: one console, one table, one `--json`
dead_letters  `tagstream dead-letters`
models        `tagstream models`
taxonomy      `tagstream taxonomy`
"""
