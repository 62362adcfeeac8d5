"""The `face-anon` command line."""
