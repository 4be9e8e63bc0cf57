"""Worker processes: forked from the zygote, they run tasks or become an actor."""
