"""Programs that start work: by which options and variables they say how much, and whether it starts outside the job.

The kinds are those of `counts.Count`. A row is `KIND: NAME...`; a name of a launcher is that of a program or module.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

ALWAYS = "always"


class Launcher(NamedTuple):
    """One program that starts work.

    `counts` are its options that say how many, and what they count. `outside` says when another process, which is not
    a child of the job, starts the work: "" never, `ALWAYS`, or with one of these options, `$VARIABLE`s or `/files`.
    """

    counts: Mapping[str, str]
    outside: str = ""


def _table(text: str) -> dict[str, str]:
    """Read rows `KIND: NAME...` as a map of names to kinds."""
    rows = (line.partition(":") for line in text.strip().splitlines())
    return {name: kind.strip() for kind, _, names in rows for name in names.split()}


_SLURM = _table("""
    nodes: -N --nodes
    tasks: -n --ntasks
    ranks: --ntasks-per-node --tasks-per-node
    node: --gpus-per-node --gres
    total: -G --gpus
    task: --gpus-per-task --tres-per-task
    array: -a --array
    unknown: --gpus-per-socket
""")
_MPI = _table("""
    tasks: -np -n -c --np --n --num-proc --min-np --max-np --max-num-proc --min-num-proc
    ranks: -N -npernode --npernode -ppn -perhost --slots --slots-per-host --map-by
    hosts: -H -host --host --hosts -hosts
    hostfile: -hostfile --hostfile -machinefile --machinefile -f --default-hostfile
""")
_OUTSIDE = _table("""
    scheduler: bsub blaunch lsrun qsub qrsh qlogin qsh pbsdsh pbs_tmrsh oarsub oarsh condor_submit condor_run ibrun poe
    mpi: mpirun_rsh mpirun.openmpi mpirun.mpich mpiexec.openmpi mpiexec.mpich prun prte
    mpi: horovod.runner horovod.runner.launch
    shell: ssh slogin autossh sshpass mosh rsh rlogin remsh rexec pdsh dsh clush pssh parallel-ssh
    container: ctr crictl kubectl oc lxc lxc-attach lxc-start incus machinectl nsenter systemd-nspawn flatpak-spawn
    service: systemd-run systemctl run0 busctl at batch crontab screen tmux dtach abduco
    cluster: ray ray.scripts.scripts sky dask dask-ssh runai
""")
"""Programs without options that count; the kind is only for readers."""

LAUNCHERS: Mapping[str, Launcher] = {
    **dict.fromkeys(
        ("torchrun", "torch.distributed.run", "torch.distributed.launch"),
        Launcher(_table("nodes: --nnodes\nnode: --nproc-per-node")),
    ),
    **dict.fromkeys(
        ("accelerate", "accelerate-launch", "accelerate.commands.launch", "accelerate.commands.accelerate_cli"),
        Launcher(
            _table("total: --num-processes\nnodes: --num-machines\nnode: --gpu-ids\nconfig: --config-file"),
            "--deepspeed-hostfile --mpirun-hostfile --tpu-cluster",
        ),
    ),
    **dict.fromkeys(
        ("deepspeed", "deepspeed.launcher.runner"),
        Launcher(
            _table("""
    nodes: --num-nodes --max-elastic-nodes --min-elastic-nodes
    node: --num-gpus --num-accelerators
    hostfile: -H --hostfile
"""),
            "-H --hostfile --launcher --force-multi /job/hostfile",
        ),
    ),
    **dict.fromkeys(("srun", "sbatch", "salloc"), Launcher(_SLURM, ALWAYS)),
    "flux": Launcher(
        _table(
            "nodes: -N --nodes\ntasks: -n --ntasks\nnode: --tasks-per-node --gpus-per-node\n"
            "task: -g --gpus-per-task --gpus-per-slot\ntotal: --nslots"
        ),
        ALWAYS,
    ),
    **dict.fromkeys(
        ("mpirun", "mpiexec", "mpiexec.hydra", "orterun", "prterun", "horovodrun", "aprun"), Launcher(_MPI, ALWAYS)
    ),
    "jsrun": Launcher(_table("tasks: -n --nrs\ntask: -g --gpu_per_rs -a --tasks_per_rs"), ALWAYS),
    **dict.fromkeys(("docker", "podman", "nerdctl"), Launcher(_table("node: --gpus"), ALWAYS)),
    "parallel": Launcher({}, "-S --sshlogin --slf --sshloginfile $PARALLEL /etc/parallel/config"),
    **dict.fromkeys(_OUTSIDE, Launcher({}, ALWAYS)),
}
"""By the name of a program or module."""

COUNTING: Mapping[str, Mapping[str, str]] = {name: row.counts for name, row in LAUNCHERS.items() if row.counts}
"""Those with options that say how many."""

RANK_LAUNCHERS = frozenset(name for name in LAUNCHERS if name.startswith(("torch", "accelerate", "deepspeed")))
"""They start ranks on the node where they run; one in each task of another launcher starts that many more."""

NAMES = _table("""
    nodes: num_nodes nnodes n_nodes num_machines max_nnodes
    node: devices num_devices gpus num_gpus n_gpus n_gpu ngpus gpus_per_node num_gpus_per_node n_gpus_per_node
    node: ngpus_per_node nproc_per_node nproc devices_per_node processes_per_node num_processes_per_node
    total: world_size total_gpus num_processes distributed_world_size
""")
"""Names of programs' own arguments and settings, after the last dot; `-` and `_` are the same."""

VARIABLES = _table("""
    total: WORLD_SIZE OMPI_COMM_WORLD_SIZE PMI_SIZE MV2_COMM_WORLD_SIZE FLUX_JOB_SIZE JSM_NAMESPACE_SIZE
    total: HOROVOD_SIZE SLURM_GPUS SLURM_STEP_NUM_TASKS ACCELERATE_NUM_PROCESSES
    tasks: SLURM_NTASKS SLURM_NPROCS
    nodes: SLURM_JOB_NUM_NODES SLURM_NNODES SLURM_STEP_NUM_NODES PET_NNODES GROUP_WORLD_SIZE FLUX_JOB_NNODES
    nodes: PBS_NUM_NODES
    node: SLURM_GPUS_PER_NODE SLURM_GPUS_ON_NODE SLURM_JOB_GPUS SLURM_STEP_GPUS SLURM_GRES SLURM_JOB_GRES
    node: LOCAL_WORLD_SIZE PET_NPROC_PER_NODE OMPI_COMM_WORLD_LOCAL_SIZE MPI_LOCALNRANKS HOROVOD_LOCAL_SIZE
    node: CUDA_VISIBLE_DEVICES NVIDIA_VISIBLE_DEVICES HIP_VISIBLE_DEVICES ROCR_VISIBLE_DEVICES GPU_DEVICE_ORDINAL
    ranks: SLURM_NTASKS_PER_NODE
    task: SLURM_GPUS_PER_TASK SLURM_TRES_PER_TASK
""")
"""Variables of schedulers and launchers, and of CUDA."""

LISTS = frozenset(name for name in VARIABLES if name.endswith(("_DEVICES", "_ORDINAL", "_JOB_GPUS", "_STEP_GPUS")))
"""Of these, lists of devices: `0` is one device, and not a number of devices."""
