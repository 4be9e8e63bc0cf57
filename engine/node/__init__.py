"""The node daemon of a machine: queue, resources, worker pool, object directory, control store."""
