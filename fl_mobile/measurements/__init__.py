"""What codecs cost and lose, on updates that are at hand."""
