"""Ray: the only room that imports it.

replicas  the tagger behind a Serve handle; metrics through Ray
head      a Ray of this machine: started, deployed to, ended
"""
