"""What is asked of versions once they are made, and of the source."""
