"""Schema revisions of the consent registry."""
