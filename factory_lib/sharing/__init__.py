"""Versions that a team shares by address: published once into a bucket or folder, opened there by any engine."""
