#!/bin/sh
# Install what make cluster starts, as root on Debian or Ubuntu; elsewhere the tests that need it are skipped, and say so.
install() {  # NAME COMMAND PACKAGE…
    name=$1; command=$2; shift 2
    command -v "$command" >/dev/null && return
    if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
        { apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$@"; } \
            >/dev/null 2>&1 && return
    fi
    echo "No $name here, and its packages can't be installed ($*): its tests are skipped."
}
PATH="$PATH:/usr/sbin:/sbin"
install SLURM slurmctld slurmctld slurmd slurm-client munge
install PostgreSQL pg_ctlcluster postgresql
