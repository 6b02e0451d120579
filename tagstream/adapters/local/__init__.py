"""Servers of this machine, each a child process.

embedded  a small Kafka-compatible broker and a Valkey, from Python packages
apache    Apache Kafka from a folder, on one node
children  processes that end with their parent
"""
