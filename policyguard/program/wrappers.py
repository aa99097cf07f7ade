"""Programs that start another one, with their options: launchers of schedulers and debuggers, and Unix tools.

A wrapper that is not listed counts as the program itself, such as a debugger, which takes commands from elsewhere. Each
row follows the program's own parser, manual or `--help`, without options that make it run something else.
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from policyguard.program.grammar import Grammar, grammar


class Wrapper(msgspec.Struct, frozen=True, kw_only=True):
    """How one program starts another: its options, and where the command begins.

    After its options come `operands` words of its own, then the command. `starts` is what the command is: "command",
    or "python" for a script and its arguments; one of `module_flags` makes it the name of a module, one of
    `command_flags` a command. `subcommand` must be the first word.
    """

    options: Grammar
    operands: int = 0
    starts: str = "command"
    module_flags: tuple[str, ...] = ()
    command_flags: tuple[str, ...] = ()
    subcommand: str = ""


_TORCHRUN = Wrapper(
    options=grammar(
        "--standalone --run-path --module -m --no-python --virtual-local-rank",
        "--nnodes --nproc-per-node --rdzv-backend --rdzv-endpoint --rdzv-id --rdzv-conf --max-restarts "
        "--monitor-interval --start-method --event-log-handler --role --log-dir --redirects -r --tee -t "
        "--local-ranks-filter --duplicate-stdout-filters --duplicate-stderr-filters --node-rank --master-addr "
        "--master-port --local-addr --logs-specs --numa-binding --signals-to-handle --shutdown-timeout",
        argparse=True,
    ),
    starts="python",
    module_flags=("-m", "--module"),
    command_flags=("--no-python",),
)

_ACCELERATE = Wrapper(
    options=grammar(
        "--cpu --debug --downcast-bf16 --dynamo-use-dynamic --dynamo-use-fullgraph "
        "--dynamo-use-regional-compilation --enable-cpu-affinity --fp8-use-autocast-during-eval --module "
        "--multi-gpu --no-python --no-tpu-cluster --quiet --same-network --tpu --tpu-cluster --tpu-use-sudo "
        "--use-deepspeed --use-fsdp --use-megatron-lm --use-parallelism-config -m -q",
        "--config-file --deepspeed-config-file --deepspeed-exclusion-filter --deepspeed-hostfile "
        "--deepspeed-inclusion-filter --deepspeed-moe-layer-cls-names --deepspeed-multinode-launcher "
        "--dynamo-backend --dynamo-mode --fp8-amax-compute-algo --fp8-amax-history-len --fp8-backend "
        "--fp8-enable-fsdp-float8-all-gather --fp8-format --fp8-interval --fp8-margin --fp8-opt-level "
        "--fp8-override-linear-precision --fp8-pad-inner-dim --fsdp-activation-checkpointing "
        "--fsdp-activation-checkpointing-offload --fsdp-auto-wrap-policy --fsdp-backward-prefetch "
        "--fsdp-cpu-ram-efficient-loading --fsdp-forward-prefetch --fsdp-min-num-params --fsdp-offload-params "
        "--fsdp-reshard-after-forward --fsdp-sharding-strategy --fsdp-state-dict-type --fsdp-sync-module-states "
        "--fsdp-transformer-layer-cls-to-wrap --fsdp-use-orig-params --fsdp-version --gpu-ids "
        "--gradient-accumulation-steps --gradient-clipping --log-dir --machine-rank --main-process-ip "
        "--main-process-port --main-training-function --max-restarts --megatron-lm-attention-backend "
        "--megatron-lm-attention-dropout --megatron-lm-attention-softmax-in-fp32 "
        "--megatron-lm-calculate-per-token-loss --megatron-lm-context-parallel-size "
        "--megatron-lm-decoder-last-pipeline-num-layers --megatron-lm-eod-mask-loss "
        "--megatron-lm-expert-model-parallel-size --megatron-lm-expert-tensor-parallel-size "
        "--megatron-lm-gradient-clipping --megatron-lm-hidden-dropout --megatron-lm-no-load-optim "
        "--megatron-lm-no-save-optim --megatron-lm-num-micro-batches --megatron-lm-optimizer-cpu-offload "
        "--megatron-lm-overlap-cpu-optimizer-d2h-h2d --megatron-lm-pp-degree --megatron-lm-recompute-activations "
        "--megatron-lm-recompute-granularity --megatron-lm-recompute-method --megatron-lm-recompute-num-layers "
        "--megatron-lm-sequence-parallelism --megatron-lm-tp-degree --megatron-lm-use-custom-fsdp "
        "--megatron-lm-use-distributed-optimizer --megatron-lm-use-precision-aware-optimizer "
        "--megatron-lm-use-rotary-position-embeddings --mixed-precision --monitor-interval --mpirun-hostfile "
        "--num-cpu-threads-per-process --num-machines --num-processes --offload-optimizer-device "
        "--offload-optimizer-nvme-path --offload-param-device --offload-param-nvme-path "
        "--parallelism-config-cp-backend --parallelism-config-cp-comm-strategy --parallelism-config-cp-size "
        "--parallelism-config-dp-replicate-size --parallelism-config-dp-shard-size "
        "--parallelism-config-sp-attn-implementation --parallelism-config-sp-backend "
        "--parallelism-config-sp-seq-length --parallelism-config-sp-seq-length-is-variable "
        "--parallelism-config-sp-size --parallelism-config-tp-size --rdzv-backend --rdzv-conf --role --tee "
        "--zero-stage --zero3-init-flag --zero3-save-16bit-model -t",
        argparse=True,
        abbreviates=False,
    ),
    starts="python",
    module_flags=("-m", "--module"),
    command_flags=("--no-python",),
    subcommand="launch",
)

_DEEPSPEED = Wrapper(
    options=grammar(
        "--no-python --module --no-local-rank --elastic-training --save-pid --bind-cores-to-rank --force-multi "
        "--no-ssh-check --no-ssh -q --quiet",
        "-H --hostfile -i --include -e --exclude --num-nodes --min-elastic-nodes --max-elastic-nodes --num-gpus "
        "--num-accelerators --master-port --master-addr --node-rank --launcher --bind-core-list "
        "--ssh-port --log-level --enable-each-rank-log --autotuning",
        argparse=True,
    ),
    starts="python",
    module_flags=("--module",),
    command_flags=("--no-python",),
)

WRAPPERS: Mapping[str, Wrapper] = {
    "torchrun": _TORCHRUN,
    "accelerate": _ACCELERATE,
    "accelerate-launch": msgspec.structs.replace(_ACCELERATE, subcommand=""),
    "deepspeed": _DEEPSPEED,
    "nohup": Wrapper(options=grammar()),
    "setsid": Wrapper(options=grammar("-c --ctty -w --wait")),
    "nice": Wrapper(options=grammar(values="-n --adjustment")),
    "ionice": Wrapper(options=grammar("-t --ignore", "-c --class -n --classdata")),
    "chrt": Wrapper(options=grammar("-b -f -i -o -r -R --batch --fifo --idle --other --rr"), operands=1),
    "time": Wrapper(options=grammar("-v --verbose -p --portability -a --append -q", "-f --format -o --output")),
    "timeout": Wrapper(
        options=grammar("--preserve-status --foreground -v --verbose", "-k --kill-after -s --signal"), operands=1
    ),
    "stdbuf": Wrapper(options=grammar(values="-i --input -o --output -e --error")),
    "taskset": Wrapper(options=grammar("-a --all-tasks -c --cpu-list"), operands=1),
    "numactl": Wrapper(
        options=grammar(
            "-a --all -l --localalloc --balancing",
            "-i --interleave -p --preferred -P --preferred-many -m --membind -N --cpunodebind -C --physcpubind -w",
        )
    ),
    "prlimit": Wrapper(options=grammar()),
    "srun": Wrapper(
        options=grammar(
            "-E --preserve-env -l --label -O --overcommit -Q --quiet -s --oversubscribe -u --unbuffered -v --verbose "
            "-X --disable-status -H --hold --overlap --exact --contiguous --spread-job",
            "-A --account -c --cpus-per-task -C --constraint -d --dependency -D --chdir -e --error -G --gpus -i "
            "--input -J --job-name -m --distribution -M --clusters -n --ntasks -N --nodes -o --output -p --partition "
            "-q --qos -r --relative -t --time -T --threads -w --nodelist -W --wait -x --exclude --gres --gpus-per-node "
            "--gpus-per-task --gpus-per-socket --ntasks-per-node --ntasks-per-gpu --mem --mem-per-cpu --mem-per-gpu "
            "--cpu-bind --gpu-bind --mpi --reservation --export --comment --signal --hint --tasks-per-node",
            optional="-K --kill-on-bad-exit --exclusive --nice --pty",
        )
    ),
}
"""By the name of the program."""

MODULES: Mapping[str, Wrapper] = {
    "torch.distributed.run": _TORCHRUN,
    "torch.distributed.launch": msgspec.structs.replace(
        _TORCHRUN,
        options=msgspec.structs.replace(_TORCHRUN.options, flags=_TORCHRUN.options.flags | {"--use-env"}),
    ),
    "accelerate.commands.launch": WRAPPERS["accelerate-launch"],
    "deepspeed.launcher.runner": _DEEPSPEED,
    "deepspeed": _DEEPSPEED,
    "runpy": Wrapper(options=grammar(), starts="module"),
    "cProfile": Wrapper(options=grammar(values="-o -s", ending="-m"), starts="python", module_flags=("-m",)),
    "profile": Wrapper(options=grammar(values="-o -s", ending="-m"), starts="python", module_flags=("-m",)),
    "coverage": Wrapper(
        options=grammar(
            "-a --append --branch -p --parallel-mode --timid -L --pylib -m --module",
            "--concurrency --context --data-file --include --omit --source",
        ),
        starts="python",
        module_flags=("-m", "--module"),
        subcommand="run",
    ),
}
"""By the name of the module, for `python -m`."""

OPTION_VARIABLES: Mapping[str, tuple[str, ...]] = {
    **dict.fromkeys(("torchrun", "torch.distributed.run", "torch.distributed.launch"), ("PET_",)),
    **dict.fromkeys(("accelerate", "accelerate-launch", "accelerate.commands.launch"), ("ACCELERATE_",)),
    "srun": ("SLURM_EXPORT_ENV", "SLURM_TASK_PROLOG", "SLURM_PROLOG", "SLURM_WORKING_DIR", "SLURM_REMOTE_CWD"),
}
"""Beginnings of the variables from which a program takes options."""

FOLDER_OPTIONS = ("-C", "-D", "--chdir")
"""Options of `env` and `srun` that name the folder in which the command runs."""

ONLY = {"--export": ("ALL", "NONE")}
"""Options of which only these values are followed; `srun --export` could set variables."""
