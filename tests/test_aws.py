"""cluster.yaml through the real `ray up`, against a stand-in for AWS (moto); what would run on the machines is written down."""

import ast
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import boto3
import pytest
import requests
import yaml
from moto.server import ThreadedMotoServer
from ray.autoscaler._private.commands import _bootstrap_config
from ray.autoscaler._private.providers import _get_node_provider
from running import ROOT

from sweeps.search.connect import autoscaled

pytestmark = pytest.mark.full
RAY = str(Path(sys.executable).with_name("ray"))
HOME = "203.0.113.7/32"
REMOTE = """#!/bin/sh
# In place of ssh and rsync: writes down what it was asked to do, and keeps the files that would have been sent.
for last; do before=$target target=$last; done
printf '%s\\n' "$(basename "$0") $before $target" >> {log}
case "$target" in *:~/ray_bootstrap_config.yaml) cp "$before" {kept};; esac
"""


@pytest.fixture
def aws(monkeypatch, tmp_path):
    """An account with a default VPC, where nobody has done anything yet; the environment for who works in it."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    home = tmp_path / "home"
    (home / ".ray").mkdir(parents=True)
    (home / ".ray" / "auth_token").write_text("0" * 64)
    region = yaml.safe_load((ROOT / "cluster.yaml").read_text())["provider"]["region"]
    requests.post(f"http://{host}:{port}/moto-api/reset").raise_for_status()  # what earlier ones left
    given = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test", "AWS_DEFAULT_REGION": region, "HOME": str(home)}
    for name, value in {**given, "AWS_ENDPOINT_URL": f"http://{host}:{port}"}.items():
        monkeypatch.setenv(name, value)
    boto3.setup_default_session()  # of this test's own
    yield
    server.stop()


@pytest.fixture
def up(tmp_path, monkeypatch):
    """up() -> (the finished `ray up`, the commands it would have run on the head, the configuration it left there)."""
    log, kept = tmp_path / "log", tmp_path / "bootstrap.yaml"
    (tmp_path / "bin").mkdir()
    for name in ("ssh", "rsync"):
        script = tmp_path / "bin" / name
        script.write_text(REMOTE.format(log=log, kept=kept))
        script.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")

    def up():
        done = subprocess.run([RAY, "up", "-y", "--no-config-cache", "cluster.yaml"], cwd=ROOT, capture_output=True, text=True)
        commands = log.read_text().splitlines() if log.exists() else []
        return done, commands, yaml.safe_load(kept.read_text()) if kept.exists() else None

    return up


def make_stack():
    """clusters/aws-account.yaml, with two images of the stand-in's: it knows none of AWS's own names for them."""
    body = (ROOT / "clusters" / "aws-account.yaml").read_text()
    ec2 = boto3.client("ec2")
    for image, name in zip(
        ec2.describe_images(Owners=["amazon"])["Images"], re.findall(r"Default: (/aws/.*)", body), strict=False
    ):
        own = name.removeprefix("/aws")
        boto3.client("ssm").put_parameter(Name=own, Value=image["ImageId"], Type="String", DataType="aws:ec2:image")
        body = body.replace(name, own)
    given = {"Vpc": ec2.describe_vpcs()["Vpcs"][0]["VpcId"], "SshFrom": HOME}
    boto3.client("cloudformation").create_stack(
        StackName="sweeps",
        TemplateBody=body,
        Capabilities=["CAPABILITY_IAM"],
        Parameters=[{"ParameterKey": name, "ParameterValue": value} for name, value in given.items()],
    )


def machine(kind: str, ec2) -> dict:
    """The one of its kind, its tags as a mapping."""
    every = [i for reservation in ec2.describe_instances()["Reservations"] for i in reservation["Instances"]]
    [one] = [i for i in every if {"Key": "ray-user-node-type", "Value": kind} in i["Tags"]]
    return {**one, "Tags": {tag["Key"]: tag["Value"] for tag in one["Tags"]}}


def on_the_head(commands: list[str]) -> list[str]:
    """What `ray up` ran there by ssh, without what it wraps around."""
    wrapped = [shlex.split(command)[-1] for command in commands if command.startswith("ssh ")]
    return [re.sub(r"export \S+;\s*", "", re.search(r"&& \((.*)\)$", command)[1]) for command in wrapped]


def test_without_the_stack_nothing_is_made(aws, up):
    done, commands, _ = up()
    assert done.returncode
    assert "launch template, with template name sweeps-worker, does not exist" in done.stderr
    assert not commands
    assert not boto3.client("ec2").describe_instances()["Reservations"]
    groups = boto3.client("ec2").describe_security_groups()["SecurityGroups"]
    assert [group["GroupName"] for group in groups] == ["default"], "Ray's own would be open to the world"


def test_what_ray_up_makes(aws, up, tmp_path):
    make_stack()
    done, commands, left = up()
    assert not done.returncode, done.stdout + done.stderr
    ec2 = boto3.client("ec2")

    head = machine("head", ec2)
    assert head["InstanceType"] == "m7i-flex.large"
    assert "InstanceLifecycle" not in head, "on demand"
    [group] = head["SecurityGroups"]
    [rules] = ec2.describe_security_groups(GroupIds=[group["GroupId"]])["SecurityGroups"]
    allowed = {(rule["IpProtocol"], rule.get("FromPort"), rule.get("ToPort")): rule for rule in rules["IpPermissions"]}
    ssh, among = allowed.pop(("tcp", 22, 22)), allowed.pop(("-1", None, None))
    assert [r["CidrIp"] for r in ssh["IpRanges"]] == [HOME]
    assert not ssh["UserIdGroupPairs"] + ssh["Ipv6Ranges"]
    assert [pair["GroupId"] for pair in among["UserIdGroupPairs"]] == [group["GroupId"]]
    assert not among["IpRanges"] + among["Ipv6Ranges"]
    assert not allowed, "nothing else comes in"

    files = [command.split()[1:] for command in commands if command.startswith("rsync ")]
    sent = {target.partition(":")[2]: Path(source) for source, target in files}
    assert sent["~/.ray/auth_token"].name == "auth_token"
    for needed in ("sweeps", "trainable", "requirements.txt"):
        assert (ROOT / sent[f"~/sweeps/{needed}{'/' * (ROOT / needed).is_dir()}"]).exists()
    ran = on_the_head(commands)
    [start] = [command for command in ran if "ray start" in command]
    for setting in ("RAY_AUTH_MODE=token", "RAY_JOB_STOP_WAIT_TIME_S=900", "--dashboard-host=127.0.0.1", "--num-cpus=0"):
        assert setting in start
    assert ran.index("chmod 600 ~/.ray/auth_token") < ran.index(start)
    assert any("uv pip install" in command and "-r ~/sweeps/requirements.txt" in command for command in ran)
    assert not [command for command in ran if "wheel" in command or "ray-nightly" in command]

    assert left["max_workers"] == 8
    assert all("RAY_AUTH_MODE=token" in c for c in left["worker_start_ray_commands"] if "ray start" in c)
    bootstrap = tmp_path / "bootstrap.yaml"
    grow = [(node["CPU"], node["GPU"]) for node in autoscaled(bootstrap)]
    assert grow == [(4, 1)] * 8, "what a sweep asks for at most"


def test_workers_need_no_more_rights_than_the_head_has(aws):
    """Started, named and ended by what Ray runs on the head."""
    asked = set()
    heard = lambda model, **more: asked.add(f"{model.service_model.service_name}:{model.name}")  # noqa: E731
    boto3.DEFAULT_SESSION.events.register("before-call", heard)
    make_stack()
    left = _bootstrap_config(yaml.safe_load((ROOT / "cluster.yaml").read_text()), no_config_cache=True)
    iam = boto3.client("iam")
    [role] = iam.list_roles()["Roles"]
    [name] = iam.list_role_policies(RoleName=role["RoleName"])["PolicyNames"]
    policy = ast.literal_eval(iam.get_role_policy(RoleName=role["RoleName"], PolicyName=name)["PolicyDocument"])
    granted = {}
    for statement in policy["Statement"]:
        actions = [statement["Action"]] if isinstance(statement["Action"], str) else statement["Action"]
        granted |= {action: [*granted.get(action, []), statement] for action in actions}
    assert not iam.list_attached_role_policies(RoleName=role["RoleName"])["AttachedPolicies"]

    asked.clear()
    provider = _get_node_provider(left["provider"], left["cluster_name"])
    launch = {"ray-node-type": "worker", "ray-user-node-type": "l4", "ray-launch-config": "", "ray-node-status": "setting-up"}
    provider.create_node(left["available_node_types"]["l4"]["node_config"], launch, 1)
    [node] = provider.non_terminated_nodes({"ray-node-type": "worker"})
    provider.set_node_tags(node, {"ray-node-status": "up-to-date"})
    provider.terminate_node(node)
    assert provider.non_terminated_nodes({"ray-node-type": "worker"}) == []
    assert asked == {"ec2:RunInstances", "ec2:DescribeInstances", "ec2:CreateTags", "ec2:TerminateInstances"}
    assert asked <= set(granted)
    assert set(granted) - asked == {"ec2:DescribeInstanceTypes"}, "which its autoscaler reads when it starts"
    bound = [statement for action in asked - {"ec2:DescribeInstances"} for statement in granted[action]]
    assert all(statement["Resource"] != "*" for statement in bound)
    free = [statement["Sid"] for statement in bound if "Condition" not in statement]
    assert free == ["WhatTheyAreMadeOf"], "every other right is bound to the cluster's name, or the workers' template"

    worker = machine("l4", boto3.client("ec2"))
    assert worker["InstanceLifecycle"] == "spot"
    assert worker["InstanceType"] == "g6.xlarge"
    assert worker["State"]["Name"] == "terminated"
    assert worker["Tags"]["ray-cluster-name"] == "sweeps"
    assert worker["Tags"]["ray-node-status"] == "up-to-date"
    assert "IamInstanceProfile" not in worker, "a worker has no rights"
