"""The HTTP service: takes uploads, checks them, queues jobs and answers polls. Never imports torch."""
