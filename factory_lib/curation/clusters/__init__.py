"""Clusters of samples by a column of vectors: k-means, the nearest centroid as a signal, semantic duplicates."""

from factory_lib.curation.clusters.assignment import cluster_of
from factory_lib.curation.clusters.centroid_rows import centroids
from factory_lib.curation.clusters.recall import index_recall
from factory_lib.curation.clusters.semantic import semantic_duplicates

__all__ = ["centroids", "cluster_of", "index_recall", "semantic_duplicates"]
