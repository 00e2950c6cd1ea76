"""Import access tokens and what they refer to, and publish their first states."""
