"""Schema revisions of the search index."""
