"""Dead letters: what stands in their topic, and sending their commands once more (CONTRACT 7 and 8)."""
