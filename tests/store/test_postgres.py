"""A results database on a PostgreSQL server: starts at the same time, rights, passwords, a restart."""

from multiprocessing.synchronize import Barrier

from postgres import Server
from store_cells import PROCESSES, configuration, together

from pfa_cli.store.engine import open_store
from pfa_cli.store.queries import runs, simulations_frame
from pfa_cli.store.writer import ensure_run, record_simulation

STARTS = 20
AT_ONCE = 4


def start_on(databases: list[str], barrier: Barrier) -> None:
    """What `pfa run` does first in a database, in one database after the other, at the same time as the other processes."""
    for db in databases:
        barrier.wait(30)
        with open_store(db, write=True) as store:
            ensure_run(store, configuration(), 0)
            record_simulation(store, "path", {"expansion": 1}, {"path_angle_degrees": [17.4, 17.6]})


def test_four_processes_start_on_an_empty_database(server: Server) -> None:
    databases = [server.new_database() for _ in range(STARTS)]
    barrier = PROCESSES.Barrier(AT_ONCE)
    together(*[(start_on, (databases, barrier))] * AT_ONCE)
    for db in databases:
        with open_store(db, write=False) as store:
            assert len(runs(store)) == 1
            assert simulations_frame(store)["value"].tolist() == [17.4, 17.6]
