"""Imports the feature definitions of EasyRec and TorchEasyRec: fg.json, with pipeline.config if there is one.

Pure Python. The result is a native spec that compiles, or every mistake at once, each by the feature's name.
"""

from featuregen.importer.dialect import DialectName
from featuregen.importer.result import Imported
from featuregen.importer.translate import ImportFailedError, import_fg

__all__ = ["DialectName", "ImportFailedError", "Imported", "import_fg"]
