"""Penstock for whatever speaks fsspec: pandas, pyarrow, DuckDB, datasets, Zarr, PyTorch.

Installing Penstock registers ``penstock://`` with fsspec; `pip install 'penstock[fsspec]'` brings
fsspec where it is not there::

    import pandas

    frame = pandas.read_parquet("penstock://lake/events/part-0.parquet")
"""

from penstock.fsspec.file_system import PenstockFileSystem

__all__ = ["PenstockFileSystem"]
