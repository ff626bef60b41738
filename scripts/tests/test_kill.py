"""A few rounds of the campaign; `scripts/kill-campaign` does as many as one likes."""

import random

from campaign import Campaign


def test_kill_9_at_random_moments(tmp_path, make_redis):
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    print(Campaign(tmp_path, seed, make_redis(keep=False)).run(10))
