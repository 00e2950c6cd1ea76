"""The demo: the golden command and a few that are refused, sent as any sender would, shown beside their answers."""
