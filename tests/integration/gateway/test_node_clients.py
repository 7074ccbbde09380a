"""The gateway as clients of Node see it: `openai`, the AI SDK, `eventsource`, from npm's registry."""

import json
import shutil
import subprocess

import pytest

from support.cluster import Cluster
from support.paths import ROOT
from support.waiting import PATIENCE_SECONDS, eventually
from tether import Tether

SOURCE = ROOT / "tests" / "support" / "node_clients"
INSTALLED = ROOT / ".venv" / "node-clients"


def run(*command):
    ran = subprocess.run(command, cwd=INSTALLED, capture_output=True, text=True, timeout=300, check=False)
    assert ran.returncode == 0, ran.stderr
    return ran.stdout


@pytest.mark.long
def test_each_gets_the_same_text_whole_and_streamed():
    INSTALLED.mkdir(exist_ok=True)
    for file in SOURCE.iterdir():
        shutil.copy(file, INSTALLED)
    run("npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--prefer-offline")
    with Cluster() as cluster:
        cluster.orchestrator()
        gateway = cluster.start_gateway()
        cluster.start_worker()
        with Tether(gateway.url, gateway.key) as client:
            eventually(lambda: client.models()[0].workers, PATIENCE_SECONDS, "the model is served")
        seen = json.loads(run("node", "clients.mjs", gateway.url, gateway.key, "counter"))
    assert seen.pop("openai_refused") == ["BadRequestError", 400, "n"]
    assert set(seen) == {"openai", "openai_stream", "ai_sdk", "ai_sdk_stream", "eventsource"}
    (text,) = set(seen.values())
    assert len(text.split()) == 8


def test_the_guide_names_the_versions_that_are_run():
    guide = (ROOT / "docs" / "guide" / "openai.md").read_text()
    for package, version in json.loads((SOURCE / "package.json").read_text())["dependencies"].items():
        assert f"`{package}` {version}" in guide
