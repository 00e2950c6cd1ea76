"""The demo: the golden command and a few refused ones, sent as any sender would, shown beside their answers."""
