"""Taxonomies as people keep them.

files    a taxonomy as a JSON or YAML file
edit     changes of a taxonomy: add, rename, merge, retire, name
shopify  a taxonomy from Shopify's
"""
