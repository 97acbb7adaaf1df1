"""Versions whose parts lie in a bucket: whose they are, what is kept there of a data folder, and the way there."""
