"""Wait, retry and give up: the same few rules wherever something may fail."""
