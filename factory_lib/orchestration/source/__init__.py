"""Where shards come from: the source as a resource, what changed there, the sensor that tells the graph."""
