"""Report on a folder; print the processor's seconds and the peak MiB as JSON: python -m tests.measured_report FOLDER"""

import json
import resource
from time import process_time

from cifar.commands.report import make_report

start = process_time()
make_report()
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
print(json.dumps([process_time() - start, peak]))
