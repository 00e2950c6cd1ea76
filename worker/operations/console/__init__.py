"""The console page: one page that shows what a worker does, how far behind it is, and why (CONTRACT, Admin port)."""
