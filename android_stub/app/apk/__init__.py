"""Class files and resources → signed APKs; run by Maven in `android_stub/app`, with Python's standard library alone."""
