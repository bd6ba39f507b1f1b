"""`python -m export.read.web`: fetch onnxruntime for browsers, or say in a sentence why not."""

import sys

from export.read.web.runtime import VERSION, fetch

try:
    print(f"onnxruntime-web {VERSION} is in {fetch()}")
except OSError as error:
    sys.exit(f"{error}\nThe page works without it, but for the check in the visitor's browser.")
