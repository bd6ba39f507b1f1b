"""One chapter a file; a chapter never imports another. Its prose lies beside it in Markdown."""
