"""What jobs will take, before they run: fitted sizes, memory, operations and time, from moments of each kind of job."""
