"""What all tests share."""

import torch
from hypothesis import settings

settings.register_profile("project", deadline=None, print_blob=True)  # a busy machine is not a wrong answer
settings.load_profile("project")
torch.set_num_threads(1)
