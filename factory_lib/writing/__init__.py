"""What is written for others to read: tars of samples, and versions in the formats that other programs know."""

from factory_lib.writing.coco import Coco
from factory_lib.writing.exporting import Export, export
from factory_lib.writing.formats import ExportFormat
from factory_lib.writing.tables import Csv, HuggingFace, Parquet
from factory_lib.writing.tars import TarWriter, writing_tar
from factory_lib.writing.webdataset import WebDataset

__all__ = [
    "Coco",
    "Csv",
    "Export",
    "ExportFormat",
    "HuggingFace",
    "Parquet",
    "TarWriter",
    "WebDataset",
    "export",
    "writing_tar",
]
