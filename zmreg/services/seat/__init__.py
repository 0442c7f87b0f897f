"""A process's seat in the cluster, driver and worker alike: values, refs, who holds them, how they are had again."""
