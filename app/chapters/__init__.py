"""One chapter a folder: its Python, prose, scripts and style. A chapter never imports another."""
