"""Several devices of a machine, and several machines, at one job: `tf.distribute`, and what it takes to agree.

All workers run the same program and meet in the same collective operations in the same order. Whatever only one can
decide or know (what is on the disk, what was measured, when to stop) the first worker, the *chief*, decides and tells.
"""

from __future__ import annotations

from deltafine.workers.cluster import Cluster, cluster_of
from deltafine.workers.joining import all_devices, join
from deltafine.workers.packing import from_bytes, to_bytes
from deltafine.workers.workers import ALONE, WorkerLost, Workers

__all__ = ["ALONE", "Cluster", "WorkerLost", "Workers", "all_devices", "cluster_of", "from_bytes", "join", "to_bytes"]
