"""The processes that hold the loaded networks and run the queued jobs."""

CANNOT_START = 2
"""The exit code of a worker that says that another start would not help."""
