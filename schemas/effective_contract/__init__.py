"""What senders and readers import: commands, results, transition events and their headers. Never imports the worker."""
