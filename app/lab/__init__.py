"""The experiment behind the page: fit a noisy sine three times. No Gradio here."""
