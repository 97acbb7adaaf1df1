"""What happened to datasets: their versions at a glance, what changed between two, where a version and a sample come from."""
