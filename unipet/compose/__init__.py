"""From YAML files and a command line to resolved configurations. Besides `sweeps`, only this package imports hydra."""
