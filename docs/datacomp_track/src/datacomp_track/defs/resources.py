"""Where versions are kept, and what is ingested: `FACTORY_HOME` and `FACTORY_SOURCE`."""

from factory_assets.defs.resources import resources

__all__ = ["resources"]
