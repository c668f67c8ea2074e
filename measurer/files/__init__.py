"""The files layer: what lies below the included paths, kept current by kernel events and re-measured on request."""
