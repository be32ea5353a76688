"""Memory of a CPU run."""
import ctypes
import platform


def keep_freed_memory() -> bool:
    """Have the C library keep freed blocks for the next use; returns whether it will.

    glibc gives every block above 32 MB back to the system when it is freed, and its next use costs
    a page fault every 4 KB: at 2160 x 3840 a third of a forward pass (docs/performance.md). The
    whole process is meant, and it then holds on to the most it ever used. Only on Linux with
    glibc; elsewhere nothing is done.
    """
    if platform.libc_ver()[0] != 'glibc':
        return False
    mallopt = ctypes.CDLL(None).mallopt
    # malloc.h: M_MMAP_THRESHOLD, M_TRIM_THRESHOLD
    return bool(mallopt(-3, 2**30) and mallopt(-1, 2**31 - 1))
