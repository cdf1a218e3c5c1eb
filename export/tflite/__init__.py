"""What stands in a ``.tflite`` file."""
