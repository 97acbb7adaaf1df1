"""What is written for others to read: tars of samples, and versions in the formats that other programs know."""

from factory_lib.writing.webdataset import WebDataset

__all__ = ["WebDataset"]
