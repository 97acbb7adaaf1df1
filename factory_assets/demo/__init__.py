"""The demonstration: the whole graph on rendered images whose truth is known, or on the user's own shards."""
