"""What a Keras model takes and gives."""
