"""A query becomes a version: its rows are written, signals computed or taken over, and the result is committed."""
