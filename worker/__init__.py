"""effective-worker: an asynchronous worker that sets access tokens effective, exactly once."""
