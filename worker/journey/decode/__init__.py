"""From bytes to a command or its refusal (CONTRACT, Command)."""
