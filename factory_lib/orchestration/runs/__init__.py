"""Runs without a daemon: what is behind, what it would cost, one run of Dagster in this process."""
