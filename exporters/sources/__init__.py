"""Where graphs come from: one kind of source per file."""
