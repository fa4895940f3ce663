"""Adapters of other libraries, read and written in their own file formats."""
