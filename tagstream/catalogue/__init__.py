"""The built-in products, for a demo, tests and load: written by hand in products.toml, drawn in code.

drawn      every product as an event, a history of them, any number of events for load
garments   drawings of clothes
goods      drawings of shoes, bags and small things
patterns   what is woven into or printed on cloth
canvas     what a picture is drawn on, and a JPEG of a given size
malformed  records that no worker accepts
"""
