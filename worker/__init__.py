"""The processes that hold the loaded networks and run the queued jobs."""
