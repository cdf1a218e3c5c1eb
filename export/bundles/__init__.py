"""The folder an app developer gets, and who made it."""
