"""Seeds as a pure function of integers, so that a training can be cut and continued anywhere.

Nothing here keeps state: whoever needs random numbers for (seed, epoch, batch) asks for that seed.
"""

import torch

_MASK = 2**64 - 1


def mixed(*numbers: int) -> int:
    """One seed in [0, 2**63) from several integers; neighbours give unrelated seeds.

    torch's CPU generator keeps only the low 32 bits of a seed, so a sum or a shift would repeat
    sequences: each number goes through a round of splitmix64 (https://prng.di.unimi.it/splitmix64.c).
    """
    state = 0
    for number in numbers:
        state = _splitmix64((state ^ number) & _MASK)
    return state >> 1


def _splitmix64(x: int) -> int:
    x = (x + 0x9E3779B97F4A7C15) & _MASK
    x = ((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
    x = ((x ^ (x >> 27)) * 0x94D049BB133111EB) & _MASK
    return x ^ (x >> 31)


def generator(*numbers: int) -> torch.Generator:
    """A CPU generator seeded with `mixed(*numbers)`."""
    return torch.Generator().manual_seed(mixed(*numbers))


def seed_default(device: torch.device, *numbers: int) -> None:
    """Seed the default generators that dropout draws from, on the CPU and on `device`."""
    seed = mixed(*numbers)
    # 1 us; torch.manual_seed costs 100 to 160 us because it seeds every backend.
    torch.default_generator.manual_seed(seed)
    if device.type == "cuda":
        torch.cuda.default_generators[device.index or 0].manual_seed(seed)
