"""Resources of this machine that this process may use."""
import os

# of the machine, or as many as Slurm, a container or taskset allows
NUM_CORES = len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else os.cpu_count()
