"""What an export measured, for programs and for people."""
