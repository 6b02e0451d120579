"""The HTTP API, for Ray Serve or any other ASGI server.

app        tag on demand, look up by product or by tag, health
admission  which callers are let in, how often, and how large a body may be
"""
