"""Many runs: the jobs of a sweep, and what a run or a sweep closes with."""
