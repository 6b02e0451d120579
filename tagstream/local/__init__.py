"""All of tagstream on this machine.

stack  broker, store, Ray and the Serve application: started and ended together
runs   which `tagstream up` runs here
demo   a catalogue through the whole stream, and an audit of it
"""
