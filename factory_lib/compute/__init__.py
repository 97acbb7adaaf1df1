"""Signals run: rows in, values out; in this process, or by workers that run what was hashed."""
