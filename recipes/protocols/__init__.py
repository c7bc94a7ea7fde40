"""How papers prepared text and scored translations; recipes call `python -m protocols`."""
