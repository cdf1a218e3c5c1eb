"""The smart camera in a browser: a bundle's ``.tflite`` files on the webcam or on pictures, locally.

`camera_resources` proves a bundle and returns the page; ``export.runtimes.browser.serving`` gives it to one computer.
"""

from export.camera.site import camera_resources

__all__ = ["camera_resources"]
