"""A few rounds of the campaign; `scripts/kill-campaign` does as many as one likes."""

import random

import pytest
from campaign import Campaign


@pytest.mark.parametrize("failing_disk", [False, True], ids=["good disk", "failing disk"])
def test_kill_9_at_random_moments(tmp_path, make_redis, failing_disk):
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    campaign = Campaign(tmp_path, seed, make_redis(keep=False), failing_disk=failing_disk)
    print(campaign.run(10))
    assert not failing_disk or campaign.failures, "the disk never failed"
