"""From YAML and a command line to resolved configurations. The only room that knows hydra."""
