"""The networks, sampling and faces in photos; works without Redis and HTTP."""
