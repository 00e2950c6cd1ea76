"""The rules that a command is refused by before anybody is asked: one place for workers, clients and the test kit."""
