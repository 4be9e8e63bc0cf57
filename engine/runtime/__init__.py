"""What drivers and workers have in common: an inbox, the objects they own, submission, get and wait."""
