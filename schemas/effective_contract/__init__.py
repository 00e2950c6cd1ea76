"""The package for senders and readers: commands, results, transition events and headers. Never imports the worker."""
