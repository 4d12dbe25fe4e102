"""Threads that lock one folder of a run at the same moment."""

import threading

from tfm.training.lock import FolderInUse, RunLock


def winners(folder, count):
    """The locks that were taken when so many threads tried at once."""
    taken, ready = [], threading.Barrier(count)

    def compete():
        own = RunLock(folder)
        ready.wait()
        try:
            own.__enter__()
        except FolderInUse:
            return
        taken.append(own)

    threads = [threading.Thread(target=compete) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return taken
