"""Versions in the formats that other programs read."""

from factory_lib.writing.coco import CocoExport
from factory_lib.writing.datacomp import ReshardedExport, SubsetExport
from factory_lib.writing.exporting import ExportReport, export
from factory_lib.writing.formats import ExportFormat
from factory_lib.writing.importing import import_samples
from factory_lib.writing.tables import CsvExport, HuggingFaceExport, ParquetExport
from factory_lib.writing.webdataset import WebDatasetExport

__all__ = [
    "CocoExport",
    "CsvExport",
    "ExportFormat",
    "ExportReport",
    "HuggingFaceExport",
    "ParquetExport",
    "ReshardedExport",
    "SubsetExport",
    "WebDatasetExport",
    "export",
    "import_samples",
]
