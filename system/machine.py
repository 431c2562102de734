"""Finds the usable cores and memory, prefetches data in threads, and measures time and memory."""
import collections
import concurrent.futures
import contextlib
import functools
import itertools
import os
import re
import timeit

# Number of CPU cores that this process may use. Slurm, a container or taskset may allow only some cores.
NUM_CORES = len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else os.cpu_count()
WARM_UP = 3  # untimed runs before a measurement: TensorFlow chooses kernels and allocates memory
UNKNOWN_FREE = 8 << 30  # bytes of memory assumed to be free if there is no /proc/meminfo


def read_ahead(read, items, ahead: int):
    """Yields (item, result) for each item; `result` is a function that returns read(item).

    Meanwhile, threads call `read` for up to `ahead` later items. `result()` waits for the thread, and raises the error
    that `read` raised. If `ahead` is 0, no thread is started, and `result()` itself calls `read`. `items` is a
    sequence.
    """
    if ahead == 0:
        yield from ((item, functools.partial(read, item)) for item in items)
        return
    remaining = iter(items)
    reading = collections.deque()
    with concurrent.futures.ThreadPoolExecutor(NUM_CORES) as pool:  # threads run in parallel: Pillow releases the GIL
        for item in items:
            for later in itertools.islice(remaining, ahead + 1 - len(reading)):
                reading.append(pool.submit(read, later))
            yield item, reading.popleft().result


def matches(pattern: str, *path: str) -> list:
    """Returns all matches of `pattern` in a text file, as `re.findall` does.

    The list is empty if the file cannot be read. In `pattern`, ^ matches the start of each line. `path`: the path of
    the file, in one or more parts.
    """
    with contextlib.suppress(OSError, UnicodeDecodeError), open(os.path.join(*path), encoding='utf-8') as file:
        return re.findall(pattern, file.read(), re.MULTILINE)
    return []


def group_folders(groups: str, root: str):
    """Yields the folders of the Linux control groups that may limit this process's memory, innermost first.

    Args:
      groups: path of the file that lists the control groups of this process. Each line is NUMBER:CONTROLLERS:PATH. Only
        lines with the controller 'memory' (version 1 of control groups) or without a controller (version 2) are used.
      root: folder that contains the folders of all control groups.
    """
    for controllers, path in matches(r'^[0-9]+:(|memory):/(.*)', groups):
        parts = path.split('/')
        for count in range(len(parts), -1, -1):
            yield os.path.join(root, controllers, *parts[:count])


def free_memory(meminfo: str = '/proc/meminfo', groups: str = '/proc/self/cgroup', root: str = '/sys/fs/cgroup') -> int:
    """Returns the number of bytes of memory that this process may still use.

    The result is the minimum of MemAvailable and of the memory left in each control group. Containers, Slurm and
    systemd limit memory by control groups. Inactive pages of the file cache count as free, because Linux drops inactive
    pages first. Only tests pass arguments.
    """
    free = [1024 * int(size) for size in matches(r'^MemAvailable: *([0-9]+)', meminfo)] or [UNKNOWN_FREE]
    for folder in group_folders(groups, root):
        for limit, used, pages in (('memory.max', 'memory.current', 'inactive_file'),
                                   ('memory.limit_in_bytes', 'memory.usage_in_bytes', 'total_inactive_file')):
            for limit_bytes in matches('^[0-9]+', folder, limit):
                used_bytes = sum(map(int, matches('^[0-9]+', folder, used)))
                inactive = sum(map(int, matches('^%s ([0-9]+)' % pages, folder, 'memory.stat')))
                free.append(int(limit_bytes) - used_bytes + inactive)
    return max(min(free), 0)


def peak_memory() -> int:
    """Returns the peak memory of this process in bytes: VmHWM in /proc/self/status.

    The peak of `getrusage` is not used, because in a new process that peak starts at the peak of the parent process.
    """
    with open('/proc/self/status') as file:
        return next(int(line.split()[1]) * 1024 for line in file if line.startswith('VmHWM'))


def seconds_of_runs(function, repeats: int) -> list:
    """Calls `function` WARM_UP times, then times `repeats` calls -> list of float, in seconds."""
    return timeit.repeat(function, 'gc.enable()', number=1, repeat=WARM_UP + repeats)[WARM_UP:]
