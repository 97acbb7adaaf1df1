"""Stages without Python: components that Dagster reads from YAML."""

from factory_lib.orchestration.components.curation_stage import CurationStage

__all__ = ["CurationStage"]
