"""What the fork server imports once, so that its processes start at once."""

import tiny_run
import torch

torch.set_num_threads(1)  # a forked process cannot use its parent's threads
tiny_run.tiny_trainer()
