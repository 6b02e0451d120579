"""The built-in products, for a demo, tests and load: written by hand in products.toml, drawn in code.

drawn        every product as an event, a history of them, any number of events for load
patterns     what is woven into or printed on cloth
canvas       what a picture is drawn on
tops         drawings of clothes for the upper body, and dresses
bottoms      … of trousers and skirts
footwear     … of shoes
accessories  … of bags, watches, caps and the like
jpeg         an encoded picture made to a size
malformed    records that no worker accepts
"""
