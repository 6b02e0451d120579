"""Redis or Valkey.

store            the `TagStore`, and the switch that halts all consumers
put_tags.lua     compare and write one product: ★ the keys are drawn at its top
check_index.lua  one product's entries in the index by tag, against its tags
"""
