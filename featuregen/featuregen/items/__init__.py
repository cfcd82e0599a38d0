"""Items in memory: what a plan reads of an item, encoded once, so that a ranking request touches numbers only.

`layout` says what is kept of an item and where, `store` keeps it (dictionaries, records, pools), `kernels*` are its
compiled program, and `ranking` computes a plan's features of items that are in there. `featuregen.itemcache` is the way
in.
"""
