"""From a converted model to a file: needs torch."""
