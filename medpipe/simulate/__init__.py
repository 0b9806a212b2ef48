"""A synthetic hospital with known truth: deliveries for the demo, tests and benchmarks."""

from medpipe.simulate.hospital import write_hospital
from medpipe.simulate.settings import HospitalSettings

__all__ = ["HospitalSettings", "write_hospital"]
