"""What two configurations differ in."""
