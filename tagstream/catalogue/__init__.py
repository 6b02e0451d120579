"""The built-in products, for a demo and for tests. infra/catalogue draws them.

built_in          every product as an event, and a history of them
products.parquet  the products with their pictures
malformed         records that no worker accepts
"""
