"""What the machines of clusters/local.yaml do with that file: find their address in it, and keep all others out.

python clusters/own.py address clusters/local.yaml       # prints it
python clusters/own.py close clusters/local.yaml         # by rules of nft, which needs root or sudo
"""

import os
import socket
import subprocess
import sys
from pathlib import Path

import yaml

PORTS = "{ 6379, 10000-10999, 44217, 44227 }"  # those that local.yaml gives to Ray, and those of its figures
# Nobody but the cluster's own machines speaks to Ray, as a cloud's security group would have it; all else is left as it is.
RULES = """\
table inet sweeps
delete table inet sweeps
table inet sweeps {{
    chain input {{
        type filter hook input priority filter; policy accept;
        iifname "lo" accept
        ip saddr {{ {members} }} accept
        tcp dport {ports} drop
        udp dport {ports} drop
    }}
}}
"""


def main():
    what, path = sys.argv[1:]
    provider = yaml.safe_load(Path(path).read_text())["provider"]
    members = [socket.gethostbyname(name) for name in (provider["head_ip"], *provider["worker_ips"])]
    if what == "address":
        print(next(filter(is_mine, members), None) or sys.exit(f"{path} names no address of this machine"))
    else:
        root = () if os.getuid() == 0 else ("sudo",)
        rules = RULES.format(members=", ".join(members), ports=PORTS)
        sys.exit(subprocess.run([*root, "nft", "-f", "-"], input=rules, text=True).returncode)


def is_mine(address: str) -> bool:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
        try:
            s.bind((address, 0))
        except OSError:
            return False
    return True


if __name__ == "__main__":
    main()
