#!/bin/sh
# A real SLURM on this machine for the tests, as root and without systemd: slurm.sh start DIR PORT PORT, slurm.sh stop DIR.
# It needs Debian's packages slurmctld, slurmd, slurm-client and munge. Then: export SLURM_CONF=DIR/slurm.conf
# Its files, its munge and its two ports are its own, so that several may run on one machine.
# One machine stands in for a cluster: accounting is off, so sacct fails; a job in the partition "urgent" preempts those
# in "main", which are requeued; a requeued job starts again after cred_expire seconds.
set -eu
action=$1
mkdir -p "$2"
dir=$(cd "$2" && pwd)
host=$(hostname -s)
export SLURM_CONF="$dir/slurm.conf"
if [ "$action" = stop ]; then
    for name in slurmd slurmctld munged; do
        if [ -f "$dir/$name.pid" ]; then
            kill "$(cat "$dir/$name.pid")" 2>/dev/null || true
        fi
    done
    for _ in $(seq 40); do  # they remove these files when they have ended
        if [ ! -f "$dir/slurmd.pid" ] && [ ! -f "$dir/slurmctld.pid" ] && [ ! -f "$dir/munged.pid" ]; then break; fi
        sleep 0.25
    done
    exit 0
fi
mkdir -p "$dir/state" "$dir/spool" "$dir/log"
cat >"$SLURM_CONF" <<CONF
ClusterName=test
SlurmctldHost=$host(127.0.0.1)
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket=$dir/munge.socket,cred_expire=5
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
SchedulerParameters=sched_interval=1,batch_sched_delay=0,bf_interval=1
StateSaveLocation=$dir/state
SlurmdSpoolDir=$dir/spool
SlurmdParameters=config_overrides
SlurmctldPidFile=$dir/slurmctld.pid
SlurmdPidFile=$dir/slurmd.pid
SlurmctldLogFile=$dir/log/slurmctld.log
SlurmdLogFile=$dir/log/slurmd.log
SlurmctldPort=$3
SlurmdPort=$4
SlurmdTimeout=10
MpiDefault=none
ReturnToService=2
JobRequeue=1
MinJobAge=10
KillWait=20
NodeName=$host NodeAddr=127.0.0.1 CPUs=2 RealMemory=4000 State=UNKNOWN
PartitionName=main Nodes=ALL Default=YES MaxTime=INFINITE PriorityTier=1 GraceTime=20 State=UP
PartitionName=urgent Nodes=ALL MaxTime=INFINITE PriorityTier=2 State=UP
CONF
(umask 077 && head -c 1024 /dev/urandom >"$dir/munge.key")
munged --force --key-file="$dir/munge.key" --socket="$dir/munge.socket" --pid-file="$dir/munged.pid" \
    --log-file="$dir/log/munged.log" --seed-file="$dir/munged.seed"  # --force: others need not reach this folder
slurmctld
slurmd
for _ in $(seq 60); do
    if [ "$(sinfo -h -p main -o %t 2>/dev/null)" = idle ]; then exit 0; fi
    sleep 0.5
done
sinfo
tail -20 "$dir/log/slurmctld.log" "$dir/log/slurmd.log"
exit 1
