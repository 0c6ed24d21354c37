"""A whole text to video stack small enough to live in the repository: its world, its training and its judge."""
