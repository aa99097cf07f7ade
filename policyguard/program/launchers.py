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
    nodes: nodes num_nodes nnodes n_nodes nnode num_node num_machines max_nnodes max_nodes node_count num_hosts
    nodes: number_of_nodes slurm_nodes slurm_nnodes
    ranks: ntasks_per_node tasks_per_node slurm_ntasks_per_node slurm_tasks_per_node
    tasks: ntasks slurm_ntasks
    task: gpus_per_task slurm_gpus_per_task
    node: devices num_devices gpus num_gpus n_gpus n_gpu ngpus gpus_per_node num_gpus_per_node n_gpus_per_node
    node: ngpus_per_node nproc_per_node nproc devices_per_node processes_per_node num_processes_per_node
    node: ngpu gpu_count num_devices_per_node num_gpu gpus_per_host gpus_per_machine accelerators_per_node
    node: slurm_gpus_per_node procs_per_node nprocs_per_node num_accelerators
    total: world_size total_gpus num_processes distributed_world_size total_num_gpus num_gpus_total n_ranks num_ranks
    total: expert_parallel_size expert_model_parallel_size expert_parallel_degree ep_size
    total: context_parallel_size context_parallel_degree cp_size sequence_parallel_size sequence_parallel_degree
    tensor: tensor_parallel_size tensor_model_parallel_size tensor_parallel_degree tp_size tp_degree
    tensor: model_parallel_size
    pipeline: pipeline_parallel_size pipeline_model_parallel_size pipeline_parallel_degree pp_size pp_degree
    data: data_parallel_size data_parallel_degree dp_size dp_degree
""")
"""Names of programs' own arguments and settings, after the last dot; `-` and `_` are the same.

`num_workers`, `num_proc` and the like are data loaders of most programs, and count nothing.
"""

PARALLEL = ("tensor", "pipeline", "data")
"""Kinds of ranks that multiply: each rank of one kind has all of the others."""

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
