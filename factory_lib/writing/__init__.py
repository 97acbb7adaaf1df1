"""What is written for others to read: tars of samples, and versions in the formats that other programs know."""
