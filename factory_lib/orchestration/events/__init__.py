"""What the events of a run record: data versions of partitions, numbers, columns, pictures."""
