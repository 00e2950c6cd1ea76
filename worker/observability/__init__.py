"""Everything that a worker shows of itself. No secret passes through here."""
