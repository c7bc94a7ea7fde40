"""The command line: one thin file per command; the only code that prints."""
