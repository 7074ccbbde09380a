"""The demo model's training, run for a few steps from scratch."""

import subprocess

import pytest

from support.paths import ROOT

PATIENCE_SECONDS = 1_500


@pytest.mark.long
@pytest.mark.timeout(1_800)
def test_a_few_steps_lower_the_loss_and_the_shipped_model_is_what_its_card_says():
    done = subprocess.run(
        [ROOT / "ops" / "demo_model" / "train", "--check"],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=PATIENCE_SECONDS,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("\nok: ") == 3
    assert "FAILED" not in done.stdout
