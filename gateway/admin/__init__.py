"""`/admin/v1`: what it is asked, does and shows."""
