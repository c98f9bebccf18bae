"""What a tenant sees of its account: statements for people and programs, and the page at `/account`."""
