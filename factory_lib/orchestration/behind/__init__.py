"""What is behind, and by what: the newest events beside code and inputs of now."""
