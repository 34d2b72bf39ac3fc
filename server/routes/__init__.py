"""The resources of the service, one file each, under /api/v1 (health stands at the root)."""
