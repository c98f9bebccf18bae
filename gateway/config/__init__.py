"""routes.yaml: from text to frozen values, with every problem named by file, line and key path."""
