"""Output for people: atomic files, text tables, progress, timings, and the messages of other libraries."""
