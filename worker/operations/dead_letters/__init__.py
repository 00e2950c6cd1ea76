"""Dead letters: read their topic, and send their commands again (CONTRACT 7 and 8)."""
