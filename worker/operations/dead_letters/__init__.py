"""Dead letters: read their topic, and send their commands again (CONTRACT, Dead letter and Command line)."""
