"""Forecasts of jobs before they run: fitted sizes, memory, operations and time, from a few measured batches per kind of job."""
