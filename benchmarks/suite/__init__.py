"""What asv measures on every commit; asv imports all that lies in this folder."""
