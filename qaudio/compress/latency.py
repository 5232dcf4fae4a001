"""How wide each layer becomes for a wanted latency, as measured on this machine.

Measurements are dear and err, so few are made: what they say of a network corrects how many MACs
the next one may have, and nothing is settled by a single one.
"""

from dataclasses import replace
from statistics import median

import torch

from qaudio.compress.allocate import (
    REFERENCE_SECONDS,
    Allocation,
    Meter,
    Widths,
    closest,
    warn_if_missed,
    within_reach,
)
from qaudio.compress.cost import latency_of, latency_ratio
from qaudio.models.base import AudioModel
from qaudio.models.registry import from_config
from qaudio.progress import progress

STEPS = 6  # measurements at most, those of the widest and the narrowest network apart
AGREE, APART = 5, 0.03  # so many are enough, of which half are off their median by less
NEAR = 1.25  # times the MACs: networks whose time goes with their MACs alike
TOLERANCE = 0.1  # off the target; missed by more, it is said


class LatencyMeter:
    """Milliseconds of a 10 s clip on this machine, front-end included, as the model stands.

    That is on its device, in its dtype and memory format, with torch's number of threads. Each
    candidate is timed in turns with the unpruned net, whose latency is measured once: a machine
    that slows down meanwhile does not pass for a slower network.
    """

    def __init__(self, model: AudioModel):
        self.model = model
        self.whole = latency_of(model, REFERENCE_SECONDS)

    def __call__(self, widths: Widths) -> float:
        if widths == self.model.widths:
            return self.whole
        candidate = of_widths(self.model, widths)
        return self.whole * latency_ratio(candidate, self.model, REFERENCE_SECONDS)


def of_widths(model: AudioModel, widths: Widths) -> AudioModel:
    """An untrained network like another but for its widths: its device, dtype, memory format."""
    fresh = from_config(replace(model.config, widths=widths)).to(model.classifier.weight)
    kernels = [parameter for parameter in model.parameters() if parameter.ndim == 4]
    if all(kernel.is_contiguous(memory_format=torch.channels_last) for kernel in kernels):
        fresh = fresh.to(memory_format=torch.channels_last)
    return fresh.train(model.training)


def towards_latency(
    meter: Meter,
    target: float,
    widths: Widths,
    allowed: dict[str, list[int]],
    by: Allocation,
    macs: Meter,
) -> Widths:
    """Widths of the chosen layers that bring the latency close to a target.

    A network's time is taken for a part that no pruning takes away, and one that goes with its
    MACs. The widest and the narrowest network give the first part. Networks near the target give
    the second: each says which MACs the next one may have, and the median of all of them which the
    choice has. Warns where 10 % are missed.

    Args:
        target: a share of the present latency (≤ 1), or milliseconds.

    Raises:
        ValueError: for a target out of reach; says what is possible.
    """
    floor = widths | {name: choices[0] for name, choices in allowed.items()}
    whole, least = meter(widths), meter(floor)
    wanted = within_reach("target_latency", target, least, whole)
    most, fewest = macs(widths), macs(floor)
    fixed = whole - (whole - least) * most / max(most - fewest, 1)
    # Nearer to what is wanted, an error in this part would outgrow what it corrects.
    fixed = min(max(fixed, 0.0), 0.75 * wanted)

    def with_rate(rate: float) -> Widths:
        return closest(macs, (wanted - fixed) / rate, widths, allowed, by)

    rates: list[tuple[float, float]] = []  # MACs, and time over MACs
    rate = (whole - fixed) / most
    for _ in progress(range(STEPS), "timing networks"):
        tried = widths | with_rate(rate)
        here = macs(tried)
        # Some of a time goes with the MACs, whatever a clock says.
        rates.append((here, max(meter(tried) - fixed, wanted / 10) / here))
        near = [one for there, one in rates if here / NEAR <= there <= here * NEAR]
        rate = median(near)
        apart = here * median(abs(one - rate) for one in near)
        if len(near) >= AGREE and apart <= APART * wanted:
            break
    chosen = with_rate(rate)
    expected = fixed + rate * macs(widths | chosen)
    warn_if_missed("target_latency", wanted, expected, TOLERANCE)
    return chosen
