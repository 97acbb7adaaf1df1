"""Fingerprints of live objects: a hash of what runs, the same in every process, with the names of what it is made of.

This room knows nothing of the rest of the factory: it is given objects, and the names of modules that do not count.
"""
