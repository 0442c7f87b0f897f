"""Results: rows from many writers, in files that are complete or say that they are not."""
