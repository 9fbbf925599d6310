"""The attacks, by what they read. Each is a function of a view or of plain arrays; `catalogue.py` lists them all."""
