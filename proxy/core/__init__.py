"""What is decided. The rule of this package is in README.md beside this file."""
