"""Finds, starts and watches the processes of distributed training.

TF_CONFIG, the variables of Slurm or the flag `--gpus` specify the processes.
"""
import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time

from system import cli
from system.files import UserError

START_SECONDS = 40    # longest wait for all processes to start
SILENCE_SECONDS = 20  # a process counts as lost after this time without an answer
LAUNCHED = 'SEGNET_LAUNCHED'  # environment variable that marks the processes that `launch` starts


def resolve_cluster() -> tuple:
    """Reads TF_CONFIG, or else Slurm's variables -> (['host:port' of each process], index of this process).

    For a single process the result is ([''], 0). Under Slurm, CUDA_VISIBLE_DEVICES is set to the GPU of this process.
    Raises UserError if TF_CONFIG is malformed, if a variable of Slurm is missing, or if srun does not number the
    processes node by node.
    """
    text = os.environ.get('TF_CONFIG')
    if not text:
        return from_slurm() if os.environ.get('SLURM_STEP_NUM_TASKS', '1') not in ('', '1') else ([''], 0)
    try:
        return from_tf_config(json.loads(text))
    except (ValueError, KeyError, TypeError, AttributeError, IndexError, RecursionError):
        raise UserError('TF_CONFIG %s: expected JSON such as %s; ps and evaluator are not supported'
                        % (text[:200], tf_config(['host:port', 'host2:port'], 0)))


def from_tf_config(config: dict) -> tuple:
    """Parses the value of TF_CONFIG -> (['host:port' of each process], index of this process).

    The chief is the first process. Without a cluster, or with a single host, the result is ([''], 0). Raises ValueError
    if there is an evaluator or a parameter server. Raises ValueError, KeyError, TypeError, AttributeError or IndexError
    for a malformed value.
    """
    places = config.get('cluster') or {}
    if not places:
        return [''], 0
    roles = [(kind, i) for kind in ('master', 'chief', 'worker') for i in range(len(places.get(kind, [])))]
    hosts = [places[kind][i] for kind, i in roles]
    ports = [int(re.match(r'.+:([0-9]+)\Z', host).group(1)) for host in hosts]
    if (set(places) - {'master', 'chief', 'worker'} or sum(kind != 'worker' for kind, _ in roles) > 1
            or len(set(hosts)) < len(hosts) or not all(0 < port < 1 << 16 for port in ports)):
        raise ValueError('the cluster')
    index = roles.index((config['task']['type'], int(str(config['task']['index']))))
    return (hosts, index) if len(hosts) > 1 else ([''], 0)


def from_slurm() -> tuple:
    """Reads srun's variables -> (['host:port' of each process], index of this process).

    If CUDA_VISIBLE_DEVICES lists several GPUs, the variable is set to one GPU: the first process of the node gets the
    first GPU. Raises UserError if a variable is missing, or if srun does not number the processes node by node.
    """
    try:
        nodes = subprocess.check_output(['scontrol', 'show', 'hostnames', os.environ['SLURM_STEP_NODELIST']],
                                        universal_newlines=True).split()
        groups = re.findall(r'(\d+)(?:\(x(\d+)\))?', os.environ['SLURM_STEP_TASKS_PER_NODE'])  # 2(x3),1 means 2,2,2,1
        tasks = [int(count) for count, times in groups for _ in range(int(times or 1))]
        places = [(node, i) for node, count in zip(nodes, tasks) for i in range(count)]
        index, local = int(os.environ['SLURM_PROCID']), int(os.environ['SLURM_LOCALID'])
        if places[index][1] != local:
            raise UserError('SLURM_DISTRIBUTION %s: srun must number the processes node by node; use srun '
                            '--distribution=block' % os.environ.get('SLURM_DISTRIBUTION', 'unset'))
        port = 20000 + int(os.environ['SLURM_JOB_ID']) % 20000  # so that jobs on the same node use different ports
        hosts = ['%s:%d' % (node, port + i) for node, i in places]
        gpus = os.environ.get('CUDA_VISIBLE_DEVICES', '').split(',')
        if len(gpus) > 1:
            os.environ['CUDA_VISIBLE_DEVICES'] = gpus[local % len(gpus)]
    except (OSError, KeyError, ValueError, IndexError, subprocess.CalledProcessError) as error:
        raise UserError('SLURM_STEP_NUM_TASKS is set, but variables are missing or wrong (%r); set TF_CONFIG' % error)
    return hosts, index


def add_flag(parser):
    """Adds --gpus to the parser of a command."""
    parser.add_argument('--gpus', type=cli.number(int, 1, 10000), default=1, help='GPUs to use, one process per GPU')


def launch(count: int, device: str) -> None:
    """Runs this command in `count` new processes, one per GPU of this machine; exits with the highest status.

    If `device` is 'cpu', all processes run on the CPU. Signals are passed on to the processes. The new processes have
    the same command line, so run folders record the command as typed. Returns at once if `count` is 1 or if `launch`
    started this process. Raises UserError if there are fewer than `count` GPUs, or if TF_CONFIG or srun names several
    processes.
    """
    if count == 1 or LAUNCHED in os.environ:
        return
    if resolve_cluster()[0] != ['']:
        raise UserError('--gpus %d: leave --gpus out with TF_CONFIG or srun; start one process for each GPU' % count)
    driver = '/proc/driver/nvidia/gpus'
    found = range(len(os.listdir(driver)) if os.path.isdir(driver) else 0)
    visible = os.environ.get('CUDA_VISIBLE_DEVICES', ','.join(map(str, found)))
    gpus = [''] * count if device == 'cpu' else [gpu for gpu in visible.split(',') if gpu]
    if len(gpus) < count:
        raise UserError('--gpus %d: the GPUs are %s; lower --gpus, or use --device cpu' % (count, visible or 'none'))
    hosts = free_hosts(count)
    # An ignored signal, such as SIGHUP under nohup, stays ignored.
    numbers = [number for number in cli.STOP_SIGNALS if signal.getsignal(number) != signal.SIG_IGN]
    early = []  # signals received before all processes are started
    for number in numbers:
        signal.signal(number, lambda number, _: early.append(number))
    # The processes run in new sessions, so Ctrl-C in the terminal reaches the processes only through `forward`.
    started = [subprocess.Popen([sys.executable] + sys.argv, start_new_session=True, env=dict(
        os.environ, CUDA_VISIBLE_DEVICES=gpu, TF_CONFIG=tf_config(hosts, i), **{LAUNCHED: '1'}))
               for i, gpu in enumerate(gpus[:count])]

    def forward(number, _):
        for process in started:
            process.send_signal(number)

    for number in numbers:
        signal.signal(number, forward)
    for number in early:
        forward(number, None)
    statuses = [process.wait() for process in started]
    sys.exit(max(128 - status if status < 0 else status for status in statuses))  # status -N: killed by signal N


def free_hosts(count: int) -> list:
    """Finds `count` free ports of this machine -> list of '127.0.0.1:port'."""
    with contextlib.ExitStack() as stack:
        free = [stack.enter_context(socket.socket()) for _ in range(count)]
        for sock in free:
            sock.bind(('127.0.0.1', 0))
        return ['127.0.0.1:%d' % sock.getsockname()[1] for sock in free]


def tf_config(hosts: list, index: int) -> str:
    """Formats the value of TF_CONFIG as JSON, for process number `index` of `hosts`, a list of 'host:port'."""
    return json.dumps({'cluster': {'worker': hosts}, 'task': {'type': 'worker', 'index': index}})


def check_port(host: str) -> None:
    """Raises UserError if the port of `host`, the 'host:port' of this process, is in use."""
    try:
        with socket.socket() as free:
            free.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            free.bind(('', int(host.rpartition(':')[2])))
    except OSError as error:
        raise UserError('%s: %s; use a free port, and another index for each process' % (host, error.strerror))


def is_listening(host: str) -> bool:
    """Returns whether a process accepts connections at `host`, 'host:port'."""
    name, _, port = host.rpartition(':')
    with contextlib.suppress(OSError):
        socket.create_connection((name, int(port)), 5).close()
        return True
    return False


def wait_for_peers(hosts: list) -> None:
    """Waits until all `hosts`, a list of 'host:port', answer. Raises UserError after START_SECONDS."""
    missing = hosts
    until = time.time() + START_SECONDS
    while missing:
        missing = [host for host in missing if not is_listening(host)]
        if missing and time.time() > until:
            raise UserError('%s: no answer within %d s; check host names, ports, indices and firewalls, and start all '
                            'processes again' % (', '.join(missing), START_SECONDS))
        time.sleep(0.2)


def monitor_peers(hosts: list, done) -> None:
    """Ends this process if a host does not answer for SILENCE_SECONDS. Returns when the Event `done` is set."""
    heard = {}
    while not done.wait(2):
        for host in hosts:
            now = time.time()
            if is_listening(host):
                heard[host] = now
            elif now - heard.setdefault(host, now) > SILENCE_SECONDS and not done.is_set():
                abort(hosts)


def abort(hosts: list, reason: str = 'another process is gone', status: int = 1) -> None:
    """Prints one line and ends this process with `status`. Sessions and files are not closed.

    A session that waits for a lost process is not closed, because session.close() would never return. The line names
    the hosts that do not answer. If all hosts answer, the line gives `reason`.
    """
    time.sleep(1)  # the port of a lost process may close a moment later than the connections
    lost = [host for host in hosts if not is_listening(host)]
    print('error: %s; start all processes again with the same commands to resume from the last checkpoint'
          % (' or '.join(lost) + ' is gone' if lost else reason), file=sys.stderr, flush=True)
    os._exit(status)
