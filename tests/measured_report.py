"""Report on a folder, then print the seconds and the peak MiB as JSON: python -m tests.measured_report FOLDER"""

import json
import resource
from time import perf_counter

from cifar.report import main

start = perf_counter()
main()
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
print(json.dumps([perf_counter() - start, peak]))
