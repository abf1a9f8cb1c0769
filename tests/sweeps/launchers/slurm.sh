#!/bin/sh
# A real SLURM on this machine for the tests, as root and without systemd: slurm.sh start DIR, slurm.sh stop DIR.
# It needs Debian's packages slurmctld, slurmd, slurm-client and munge. Then: export SLURM_CONF=DIR/slurm.conf
# One machine stands in for a cluster: accounting is off, so sacct fails; a job in the partition "urgent" preempts those
# in "main", which are requeued; a requeued job starts again after cred_expire seconds.
set -eu
action=$1
mkdir -p "$2"
dir=$(cd "$2" && pwd)
host=$(hostname -s)
export SLURM_CONF="$dir/slurm.conf"
if [ "$action" = stop ]; then
    [ -f "$dir/munged.pid" ] && owns_munge=yes || owns_munge=no
    for name in slurmd slurmctld munged; do
        if [ -f "$dir/$name.pid" ]; then
            kill "$(cat "$dir/$name.pid")" 2>/dev/null || true
        fi
    done
    for _ in $(seq 40); do  # they remove these files when they have ended
        if [ ! -f "$dir/slurmd.pid" ] && [ ! -f "$dir/slurmctld.pid" ]; then break; fi
        sleep 0.25
    done
    [ $owns_munge = no ] || rm -f "$dir/munged.pid"
    exit 0
fi
mkdir -p "$dir/state" "$dir/spool" "$dir/log" /run/munge
cat >"$SLURM_CONF" <<CONF
ClusterName=test
SlurmctldHost=$host(127.0.0.1)
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=cred_expire=5
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
SlurmctldPort=16817
SlurmdPort=16818
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
if ! munge -n >/dev/null 2>&1; then
    chown -R munge:munge /etc/munge /var/lib/munge /var/log/munge /run/munge
    su -s /bin/sh munge -c /usr/sbin/munged
    cp /run/munge/munged.pid "$dir/munged.pid" 2>/dev/null || true
fi
slurmctld
slurmd
for _ in $(seq 60); do
    if [ "$(sinfo -h -p main -o %t 2>/dev/null)" = idle ]; then exit 0; fi
    sleep 0.5
done
sinfo
tail -20 "$dir/log/slurmctld.log" "$dir/log/slurmd.log"
exit 1
