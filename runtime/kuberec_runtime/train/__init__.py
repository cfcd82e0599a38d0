"""Parameter-server training: the driver, its actors, the cut, the checkpoint and the publication of an attempt."""
