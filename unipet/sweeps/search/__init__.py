"""Which jobs of a sweep come next: the trials of every study in stages, the choice among them, the runs of the chosen."""
