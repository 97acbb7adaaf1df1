"""Versions in the formats that other programs read."""

from factory_lib.writing.coco import Coco
from factory_lib.writing.datacomp import Resharded, Subset
from factory_lib.writing.exporting import Export, export
from factory_lib.writing.formats import ExportFormat
from factory_lib.writing.tables import Csv, HuggingFace, Parquet
from factory_lib.writing.webdataset import WebDataset

__all__ = [
    "Coco",
    "Csv",
    "Export",
    "ExportFormat",
    "HuggingFace",
    "Parquet",
    "Resharded",
    "Subset",
    "WebDataset",
    "export",
]
