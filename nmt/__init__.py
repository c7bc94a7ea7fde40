"""Neural machine translation from the command line: text -> batches -> model -> text -> numbers."""

__version__ = "0.1.0"
