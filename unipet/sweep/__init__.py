"""From a command line to runs: overrides, composing with Hydra, one run or a sweep of them. The only room that knows hydra."""
