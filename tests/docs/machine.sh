# Run by machines.py in namespaces of its own: makes a machine of them, and stays as its first
# process. $1: a directory to work in; $2: its name; $3: the checkout, shared with this machine;
# $4: a directory for what goes to and fro.
set -euo pipefail
hostname "$2"
ip link set lo up
# A file system of its own over this machine's: what is written is in memory, and gone at the end.
mount -t tmpfs -o size=64T,mode=755 "$2" "$1"
mkdir "$1/upper" "$1/work" "$1/root"
mount -t overlay -o "lowerdir=/,upperdir=$1/upper,workdir=$1/work" "$2" "$1/root"
cd "$1/root"
mount --rbind /dev dev
mount --rbind /sys sys
mount -t proc proc proc
mount -t tmpfs run run
# Disks of this machine that are not its root's; the interpreter may lie on one.
disks=$(findmnt --noheadings --raw --output TARGET -t ext4,xfs,btrfs,overlay,zfs,nfs,nfs4,9p,virtiofs || true)
for shared in $disks "$3" "$4"; do
    [[ -d $shared && $shared != / && $shared/ != "$1"/* ]] || continue
    mkdir -p ".$shared"
    mount --bind "$shared" ".$shared"
done
mkdir -p run/old home/engineer
pivot_root . run/old
cd /
umount --lazy run/old
rmdir run/old
md5sum <<<"$2" | cut -c -32 >/etc/machine-id
echo "127.0.0.1 localhost" >/etc/hosts
: >/etc/resolv.conf
echo "$2 is up"
# Bash takes in whatever a process leaves behind.
while :; do sleep infinity & wait; done
