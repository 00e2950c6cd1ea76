"""The demo: the golden command and a few that must be refused, sent as any sender would and shown beside their answers."""
