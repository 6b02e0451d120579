"""How a model is made: one recipe, one loop, an objective for each thing that is learned.

recipe      how a version is made, from top to bottom: read, split, train, fuse, threshold, release
members     what a recipe chooses, and the making of the text and the image member
loop        the one training loop: seeded, shared over processes, resumed
objectives  what the members learn: the loss over all heads, and masked words before them
fusion      the fusion and each value's threshold, fitted on held-out rows
progress    what a run says after each epoch, its validation and its checkpoints
release     the trained parts measured, described in a card and written
on_ray      a run on Ray Train's workers, and its log in MLflow
search      the search of hyper-parameters on Ray Tune
extraction  how an extractor is made
generation  how a generator is made
"""
