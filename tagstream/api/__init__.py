"""The HTTP API, for Ray Serve or any other ASGI server.

app        tag on demand, look up by product or by tag, health
admission  rate limit and body limit
"""
