"""What the tests of the export share."""

import logging

logging.getLogger("torch.__trace").propagate = False  # torch.export tells it megabytes, and pytest would keep them
