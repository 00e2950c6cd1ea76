"""Import access tokens and everything they refer to, and publish their first states."""
