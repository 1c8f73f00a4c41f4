"""How queries come: one at a time, eight samples at a time, or all at once, as MLPerf Inference measures them.

MLPerf Inference rules, https://github.com/mlcommons/inference_policies/blob/master/inference_rules.adoc, section
"Scenarios", edge system: the percentile that each reports, samples of a query, and the fewest queries from which early
stopping lets that percentile be told with 99 % confidence (64 for the 90th, 662 for the 99th). MLPerf also runs for 600
seconds, which edgetok does not ask for: its intervals say what fewer runs are worth.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from edgetok.errors import UnknownName, UsageError

if TYPE_CHECKING:
    import numpy as np

    from edgetok.bundle import Bundle


@dataclass(frozen=True)
class Scenario:
    """One way in which queries come.

    Attributes:
        name: of it.
        samples: of a query, which are one run of the model.
        percentile: of the latency that it is told by.
        queries: the fewest for that.
        summary: one line.
    """

    name: str
    samples: int
    percentile: float
    queries: int
    summary: str

    def feeds(self, bundle: Bundle, given: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """The inputs of a query: those given, again and again where a query is more than one sample.

        Raises:
            UsageError: the bundle's batch is fixed at another size.
        """
        import numpy as np

        fixed = bundle.manifest.recipe.batch
        if self.samples == 1 or fixed == self.samples:
            return given
        if fixed is not None:
            raise UsageError(
                f"--scenario {self.name} asks {self.samples} samples at once, and the batch of {bundle.path} is fixed "
                f"at {fixed}: export it without --batch, or with --batch {self.samples}"
            )
        return {
            name: np.concatenate([array] * -(-self.samples // len(array)))[: self.samples]
            for name, array in given.items()
        }


SCENARIOS = (
    Scenario("single-stream", 1, 0.9, 64, "one sample behind the other: p90 of the latency"),
    Scenario("multi-stream", 8, 0.99, 662, "queries of eight samples, one behind the other: p99 of the latency"),
    Scenario("offline", 32, 0.5, 768, "24576 samples that are all there, in batches of 32: samples per second"),
)


def load(name: str) -> Scenario:
    """The scenario of a name.

    Raises:
        UnknownName: there is none.
    """
    found = {scenario.name: scenario for scenario in SCENARIOS}
    if name not in found:
        raise UnknownName("scenario", name, found)
    return found[name]
