"""The job contract: what service and worker say to each other, and the Redis keys it lies under."""
