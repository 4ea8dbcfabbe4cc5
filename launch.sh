#!/usr/bin/env bash
# One command from a fresh checkout to a trained network; arguments are Hydra overrides.
#
#   bash launch.sh                                            ResNet-32 on the digits, 4 ranks
#   NPROC=2 bash launch.sh model=vit_tiny optimizer=adamw     other settings
#   NNODES=2 NODE_RANK=0 MASTER_ADDR=host0 MASTER_PORT=29500 bash launch.sh output_dir=/shared/run1
#                                                             on each of two machines (NODE_RANK=1 on the second)
#
# NPROC is the number of ranks on this machine, TORCHRUN_OPTIONS what torchrun is told beyond, such as
# --max-restarts=3. Paths are those of the folder where this is called.
set -euo pipefail
pushd "$(dirname "${BASH_SOURCE[0]}")" >/dev/null
source scripts/environment.sh
make_environment ""
popd >/dev/null
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-1}  # keeps torchrun quiet; the setting `threads` decides
nproc=${NPROC:-4}
if [[ ${NNODES:-1} == 1 ]]; then
    # shellcheck disable=SC2086
    exec torchrun --standalone --nproc_per_node="$nproc" ${TORCHRUN_OPTIONS:-} -m trainer.main "$@"
fi
# shellcheck disable=SC2086
exec torchrun --nnodes="$NNODES" --node_rank="${NODE_RANK:?set NODE_RANK to the number of this machine, from 0}" \
    --master_addr="${MASTER_ADDR:?set MASTER_ADDR to the first machine}" --master_port="${MASTER_PORT:-29500}" \
    --nproc_per_node="$nproc" ${TORCHRUN_OPTIONS:-} -m trainer.main "$@"
