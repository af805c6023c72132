import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parent))  # tiny_run, which the tests' own processes import as well
