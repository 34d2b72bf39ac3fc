"""Labelled data for the physical networks: tasks, where their files come from, splits.

Imports numpy, scikit-learn (its packaged digits), pooch, `lab.config`, `lab.errors` and
`lab.jobs.data_folder`; neither torch nor instruments. Real files are read from the folder that the
environment variable `PNNLAB_DATA` names, else downloaded once into the user's cache; either way a
checksum guards them. A user's own arrays (`own`, `array_files`, `csv_table`, `arrays`) are checked
instead, and no code in their files is run.
"""

from lab.datasets.base import Dataset, Split, split
from lab.datasets.tasks import load, load_or_fallback

__all__ = ["Dataset", "Split", "load", "load_or_fallback", "split"]
