"""Directories that the adapters library (AdapterHub) wrote, read by their layout."""
