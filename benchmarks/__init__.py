"""Speed and memory of the gateway, always against something else in the same run: `make bench`."""
