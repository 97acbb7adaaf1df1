"""Signals on a Ray cluster: workers on its nodes, and the work that is shared out among them."""
