"""A real Ray cluster of several nodes on this machine, in a process of its own.

python ray_nodes.py 1 2    one line for each line that it reads: "add 1", "kill 0"; EOF ends it
"""

import os
import secrets
import subprocess
import sys
from types import TracebackType


class Nodes:
    """The test's end of such a process."""

    def __init__(self, *nodes: str) -> None:
        # Ray reads these when it is imported; only who knows the token is heard by the cluster.
        os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))
        os.environ.update({"RAY_AUTH_MODE": "token", "RAY_USAGE_STATS_ENABLED": "0"})
        self._process = subprocess.Popen(
            [sys.executable, __file__, *nodes],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            start_new_session=True,
            env={k: v for k, v in os.environ.items() if k != "RAY_ADDRESS"},
        )
        self.address = self._line()

    def add(self, node: str) -> None:
        """One more node."""
        self._tell(f"add {node}")

    def kill(self, index: int) -> None:
        """A node dies without a word."""
        self._tell(f"kill {index}")

    def __enter__(self) -> "Nodes":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._process.communicate()

    def _tell(self, command: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(f"{command}\n")
        self._process.stdin.flush()
        self._line()

    def _line(self) -> str:
        assert self._process.stdout is not None
        line = self._process.stdout.readline().strip()
        assert line, "the cluster could not be started"
        return line


def main(first: str, *others: str) -> None:
    """Serves one test session."""
    from ray.cluster_utils import Cluster

    head = {**settings(first), "include_dashboard": False}
    cluster = Cluster(initialize_head=True, head_node_args=head)
    nodes = [cluster.head_node, *(cluster.add_node(**settings(node)) for node in others)]
    print(cluster.address, flush=True)
    for line in sys.stdin:
        command, argument = line.split()
        if command == "add":
            nodes.append(cluster.add_node(**settings(argument)))
        else:
            cluster.remove_node(nodes[int(argument)], allow_graceful=False)
        print("done", flush=True)
    cluster.shutdown()


def settings(node: str) -> dict[str, int]:
    """Of a node that is written as 4 or 4:2."""
    cpus, _, gpus = node.partition(":")
    return {"num_cpus": int(cpus), "num_gpus": int(gpus or 0), "object_store_memory": 80 * 2**20}


if __name__ == "__main__":
    main(*sys.argv[1:])
