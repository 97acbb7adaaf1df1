"""What happened to datasets: versions at a glance, what differs between two, where a version and a sample come from."""
